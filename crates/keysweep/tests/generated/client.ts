// A client that is generated from docs/openapi.json, against a running keysweep: the compiler checks every path, field and type.
//
// usage: client.js BASE PROJECT USER PASSWORD URL-OF-A-SERVER
//
// Prints one JSON object with what the client made of the answers; the Rust test that starts this asserts on it.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

const [base, project_id, name, password, url] = process.argv.slice(2) as [string, string, string, string, string];

function found<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) {
    throw new Error(JSON.stringify(answer.error));
  }
  return answer.data;
}

async function main(): Promise<void> {
  const anonymous = createClient<paths>({ baseUrl: base });
  const signedIn = await anonymous.POST("/v3/auth/tokens", {
    body: {
      auth: {
        identity: { methods: ["password"], password: { user: { name, password } } },
        scope: { project: { id: project_id } },
      },
    },
  });
  const token = signedIn.response.headers.get("X-Subject-Token");
  if (token === null) {
    throw new Error(JSON.stringify(signedIn.error));
  }
  const client = createClient<paths>({ baseUrl: base, headers: { "X-Auth-Token": token } });
  const instances = "/api/v1/projects/{project_id}/instances" as const;
  const registered = found(
    await client.POST(instances, {
      params: { path: { project_id } },
      body: { name: "from typescript", url, pace: "gentle" },
    }),
  );
  const path = { project_id, instance_id: registered.id };
  const one = `${instances}/{instance_id}` as const;
  const listed = found(await client.GET(instances, { params: { path: { project_id } } }));
  const tested = found(await client.POST(`${one}/test`, { params: { path } }));
  const created = found(
    await client.POST("/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", { params: { path } }),
  );
  const task = { project_id, task_id: created.id };
  let shown: components["schemas"]["TaskDetailView"];
  do {
    await new Promise((resolve) => setTimeout(resolve, 50));
    shown = found(await client.GET("/api/v1/projects/{project_id}/tasks/{task_id}", { params: { path: task } }));
  } while (shown.status === "waiting" || shown.status === "running");
  await client.DELETE(one, { params: { path } });
  const absent = await client.GET(one, { params: { path } });
  console.log(
    JSON.stringify({
      pace: registered.pace,
      names: listed.instances.map((instance) => instance.name),
      tested: tested.ok,
      status: shown.status,
      absent: absent.error?.error.code,
    }),
  );
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
