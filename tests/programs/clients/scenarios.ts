// Five ways through the service by the client that hey-api makes of its document, compiled strictly.
import assert from "node:assert/strict";
import { client } from "./hey/client.gen";
import { cancelTask, execute, followTask, getArtifact, getTask, uploadFile } from "./hey/sdk.gen";

client.setConfig({ baseUrl: process.env.SERVICE_URL ?? "", auth: () => process.env.SERVICE_KEY ?? "" });

async function aResultHasTheTypeOfItsTask(): Promise<void> {
  const data = [1, 2, 3];
  const { data: task } = await execute({
    query: { wait: 60 },
    body: { task_type: "data_processing", parameters: { operation: "statistics", data } },
  });
  assert(task?.task_type === "data_processing" && task.result?.operation === "statistics");
  const rows: number = task.result.rows;
  assert.equal(rows, 3);
}

async function aFailureSaysWhy(): Promise<void> {
  const { data: task } = await execute({
    query: { wait: 60 },
    body: { task_type: "custom_script", parameters: { script: "result = 1 / 0" } },
  });
  assert(task?.exit_reason === "error" && task.error);
  assert.equal(task.error.type, "ZeroDivisionError");
  assert(task.error.traceback?.includes("line 1"));
}

async function aRefusalNamesItsPlace(): Promise<void> {
  const { error, response } = await execute({
    body: { task_type: "custom_script", parameters: { script: "" } },
  });
  assert.equal(response?.status, 400);
  assert.deepEqual(error?.errors?.map((fault) => fault.path), ["$.parameters.script"]);
}

async function filesGoInAndComeOut(): Promise<void> {
  const bytes = new Uint8Array([0, 255, 10]);
  const { data: file } = await uploadFile({ body: new Blob([bytes]), query: { name: "raw.bin" } });
  assert.equal(file?.size_bytes, 3);
  const script = "import shutil\nshutil.copy('inputs/raw.bin', 'artifacts/raw.bin')";
  const inputs = { "raw.bin": { file_id: file.file_id } };
  const { data: task } = await execute({
    query: { wait: 60 },
    body: { task_type: "custom_script", parameters: { script, inputs } },
  });
  assert.deepEqual(task?.artifacts.map((one) => one.name), ["raw.bin"]);
  const { data: blob } = await getArtifact({
    path: { task_id: task.task_id, name: "raw.bin" },
    parseAs: "blob",
  });
  assert(blob instanceof Blob);
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), bytes);
}

async function aTaskIsFollowedAndStopped(): Promise<void> {
  const script = "import time\nprint('up', flush=True)\ntime.sleep(100)";
  const { data: task } = await execute({
    headers: { "Idempotency-Key": `clients-${process.pid}` },
    body: { task_type: "custom_script", parameters: { script } },
  });
  assert(task);
  const path = { task_id: task.task_id };
  const { stream } = await followTask({ path });
  let text = "";
  for await (const event of stream) {
    text += JSON.stringify(event);
    if (text.includes("up")) break;
  }
  await cancelTask({ path, query: { wait: 30 } });
  const { data: ended } = await getTask({ path });
  assert.equal(ended?.status, "cancelled");
}

for (const scenario of [
  aResultHasTheTypeOfItsTask,
  aFailureSaysWhy,
  aRefusalNamesItsPlace,
  filesGoInAndComeOut,
  aTaskIsFollowedAndStopped,
]) {
  await scenario();
  console.log(`ok ${scenario.name}`);
}
