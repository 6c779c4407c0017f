// Asks the service, with the session's cookie, which this page cannot read, and its token, which no other page has.

let token = null;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? "The service did not answer as it should.");
    this.status = status;
    this.title = problem.title;
    this.errors = problem.errors ?? [];
  }
}

// A number that JavaScript cannot hold exactly, as the service wrote it.
export class Exact {
  constructor(text) { this.text = text; }
  toString() { return this.text; }
  toJSON() { return JSON.rawJSON ? JSON.rawJSON(this.text) : this.text; }
}

export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    if (typeof value !== "number" || !context?.source) return value;
    const same = Number.isInteger(value) ? Number.isSafeInteger(value) || !/^-?\d+$/.test(context.source) : true;
    return same ? value : new Exact(context.source);
  });
}

export async function ask(method, path, { json, body, headers = {}, accepts = [] } = {}) {
  const given = { accept: "application/json", ...headers };
  if (json !== undefined) given["content-type"] = "application/json";
  if (token && method !== "GET") given["x-csrf-token"] = token;
  let answer;
  try {
    answer = await fetch(path, { method, headers: given, body: json !== undefined ? JSON.stringify(json) : body, credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Refused(0, { title: "The service is unreachable", detail: "It did not answer: is it up? Lists try again by themselves." });
  }
  const text = answer.status === 204 ? "null" : await answer.text();
  let value;
  try { value = parse(text); } catch { value = {}; }
  if (answer.ok || accepts.includes(answer.status)) return value;
  if (answer.status === 401 && !path.startsWith("/session")) dispatchEvent(new Event("signed-out"));
  throw new Refused(answer.status, value ?? {});
}

export async function session() {
  const found = await ask("GET", "/session");
  token = found.csrf_token;
  return found;
}

export async function signIn(key) {
  const found = await ask("POST", "/session", { headers: { authorization: `Bearer ${key}` } });
  token = found.csrf_token;
  return found;
}

export async function signOut() {
  await ask("DELETE", "/session");
  token = null;
}

export function query(values) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value) found.append(name, value);
  const text = found.toString();
  return text ? `?${text}` : "";
}

export const artifactPath = (id, name) => `/task/${encodeURIComponent(id)}/artifacts/${name.split("/").map(encodeURIComponent).join("/")}`;

// A picture as an object of this page: the service sends every artifact as bytes to save, and only these types are shown.
const PICTURES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp" };
export const isPicture = (name) => Object.hasOwn(PICTURES, name.split(".").pop().toLowerCase());
export async function picture(id, name) {
  const answer = await fetch(artifactPath(id, name), { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw new Refused(answer.status, {});
  return URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: PICTURES[name.split(".").pop().toLowerCase()] }));
}
