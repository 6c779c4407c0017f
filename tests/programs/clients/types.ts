// The types that openapi-typescript makes of the document, with openapi-fetch, compiled strictly.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

const service = createClient<paths>({
  baseUrl: process.env.SERVICE_URL ?? "",
  headers: { Authorization: `Bearer ${process.env.SERVICE_KEY ?? ""}` },
});

function wordsOf(task: components["schemas"]["Task"]): string {
  switch (task.task_type) {
    case "data_processing":
      return task.result?.operation === "sum" ? String(task.result.sum) : "another operation";
    case "custom_script":
      return `a script: ${JSON.stringify(task.result)}`;
  }
}

const { data: task } = await service.POST("/execute", {
  params: { query: { wait: 60 } },
  body: { task_type: "data_processing", parameters: { operation: "sum", data: [1, 2, 3] } },
});
assert(task);
assert.equal(wordsOf(task), "6");
const { error } = await service.GET("/task/{task_id}", {
  params: { path: { task_id: "00000000-0000-0000-0000-000000000000" } },
});
assert.equal(error?.status, 404);
console.log("ok the types of openapi-typescript");
