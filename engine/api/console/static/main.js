// The console: which view an address shows, and who looks at it.

import { Refused, session, signIn, signOut } from "./api.js";
import { auditView } from "./audit.js";
import { fault, fill, h, say } from "./dom.js";
import { operationsView } from "./operations.js";
import { playgroundView } from "./playground.js";
import { policiesView } from "./policies.js";
import { taskView } from "./task.js";
import { tasksView } from "./tasks.js";

const VIEWS = { tasks: "Tasks", playground: "Playground", policies: "Policies", operations: "Operations", audit: "Audit" };
const main = document.getElementById("main");
let who = null, leaving = new AbortController();

function address() {
  const [path, text = ""] = location.hash.replace(/^#\/?/, "").split("?");
  let parts;
  try { parts = path.split("/").map(decodeURIComponent); } catch { parts = [""]; }
  return { view: parts[0] || "tasks", name: parts.length > 1 ? parts.slice(1).join("/") : null, given: new URLSearchParams(text) };
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const here = leaving.signal;
  const { view, name, given } = address();
  fill(document.getElementById("views"), Object.entries(VIEWS).map(([word, title]) => h("a", { href: `#/${word}`, "aria-current": word === view ? "page" : null }, title)), h("a", { href: "/docs" }, "Interface"));
  document.title = `${name && view !== "audit" ? name : VIEWS[view] ?? "Nothing here"} · UnityAI worker`;
  try {
    if (view === "tasks") await (name ? taskView(main, name, here, who) : tasksView(main, given, here));
    else if (view === "playground") await playgroundView(main, given, here, who);
    else if (view === "policies") await policiesView(main, name, given, who, here);
    else if (view === "operations") await operationsView(main, here, who);
    else if (view === "audit") await auditView(main, name, given, here, who);
    else fill(main, h("h1", {}, "There is nothing here"), h("p", {}, h("a", { href: "#/tasks" }, "All tasks")));
  } catch (error) {
    if (!here.aborted && error.status !== 401) fill(main, h("h1", {}, VIEWS[view] ?? "Console"), fault(error), h("button", { type: "button", onclick: show }, "Try again"));
    if (!(error instanceof Refused) && !here.aborted) throw error;
  }
}

function identity() {
  fill(document.getElementById("who"), who.key_id
    ? [h("span", { title: `key ${who.key_id}` }, who.tenant, h("span", { class: "wide-only" }, ` · key ${who.key_id}`)), h("button", { type: "button", onclick: async () => { try { await signOut(); } finally { door("You are signed out."); } } }, "Sign out")]
    : h("span", {}, "development, no keys"));
}

// Where there are keys and no session: ask for one. The key is not kept here; the session's cookie is.
function door(why) {
  leaving.abort();
  who = null;
  fill(document.getElementById("views"));
  fill(document.getElementById("who"));
  const key = h("input", { type: "password", autocomplete: "off", required: true, size: 50, placeholder: "uak_…" });
  const told = h("div", {}, why ? h("p", { role: "status" }, why) : null);
  const button = h("button", { class: "main" }, "Sign in");
  fill(main, h("div", { class: "door panel" }, h("h1", {}, "Sign in"), h("p", {}, "This service asks for an API key. The console opens what the key opens, for twelve hours or until you sign out."), told,
    h("form", { class: "row", onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      try { who = await signIn(key.value.trim()); key.value = ""; await begin(); } catch (error) { fill(told, fault(error.status === 401 ? { title: "This key opens nothing here", message: "It is mistyped, expired or revoked." } : error)); button.disabled = false; key.focus(); }
    } }, h("label", {}, "API key", key), button),
    h("p", { class: "hint" }, "An operator makes one: ", h("code", {}, "python -m engine keys new --tenant NAME --scopes submit,read,cancel,audit"), ". With ", h("code", {}, "admin"), " it shows all tenants.")));
  key.focus();
}

async function begin() {
  identity();
  await show();
}

addEventListener("hashchange", async (event) => {
  if (new URL(event.newURL).hash === "#main") { history.replaceState(null, "", new URL(event.oldURL).hash || "#/tasks"); main.focus(); return; }
  if (who) { await show(); main.focus({ preventScroll: true }); scrollTo(0, 0); say(document.title); }
});
addEventListener("signed-out", () => door("Your session has ended. Sign in again."));

try {
  who = await session();
  await begin();
} catch (error) {
  if (error.status === 401) door(null);
  else fill(main, h("h1", {}, "Console"), fault(error), h("button", { type: "button", onclick: () => location.reload() }, "Try again"));
}
