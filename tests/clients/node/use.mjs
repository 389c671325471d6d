// Uses the compiled TypeScript client as the Python test asks: node use.mjs CLIENT BASE_URL ENDPOINT, orders on stdin.
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [client, baseUrl, endpoint] = process.argv.slice(2);
const { FluxClient, filesOf } = await import(pathToFileURL(client).href);
let text = "";
for await (const chunk of process.stdin) text += chunk;

async function done({ job, file, tries, cancel, seen }) {
  const flux = new FluxClient(endpoint, { apiKey: "local", baseUrl, ...(tries && { tries }) });
  try {
    if (file) return { data: Buffer.from(await flux.read(file)).toString("base64") };
    if (job.op) return { answer: await flux.capabilities() };
    const submitted = await flux.submit(job);
    const first = submitted.id;
    const stages = [];
    for await (const progress of submitted) {
      stages.push(progress.stage);
      if (seen && progress.stage === "denoising") writeFileSync(seen, "");
      if (cancel && progress.stage !== "waiting") await submitted.cancel();
    }
    const result = await submitted.result();
    const bytes = await flux.read(filesOf(result)[0]);
    return { data: Buffer.from(bytes).toString("base64"), seed: result.seed, stages, same: first === submitted.id };
  } catch (error) {
    return { error: error.name, code: error.code, field: error.field, message: error.message };
  }
}

console.log(JSON.stringify(await Promise.all(JSON.parse(text).map(done))));
