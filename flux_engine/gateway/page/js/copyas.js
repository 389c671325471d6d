// A task as a program that makes the same again: curl, Python, JavaScript, the OpenAI client. Each runs as pasted, with the
// key in FLUX_API_KEY. The API tells no picture back, so one that was made from pictures is asked for by its task.
import { isVideo, parametersOf } from "./asked.js";

export const LANGUAGES = { curl: "curl", python: "Python", javascript: "JavaScript", openai: "OpenAI client" };

const NOT_SENT = ["response_format", "preview", "cache"];
const PICTURES = ["image", "mask", "images", "control"];
const OF_OPENAI = ["prompt", "width", "height", "num_images", "output_format", "type"];

export function jobToRepeat(task) {
  const given = Object.entries(parametersOf(task)).filter(
    ([name, value]) => value !== null && !NOT_SENT.includes(name) && !(Array.isArray(value) && value.length === 0),
  );
  const job = Object.fromEntries(given);
  if (job.aspect_ratio) {
    delete job.width;
    delete job.height;
  }
  return job;
}

export function copyAs(language, task, origin = location.origin) {
  const whole = jobToRepeat(task);
  const job = hasPictures(task) ? { seed: task.seed } : whole;
  const making = isVideo(task) ? "generate-video" : "generate-image";
  const route = hasPictures(task) ? `task/${task.task_id}/again` : making;
  const file = `flux.${whole.output_format ?? (isVideo(task) ? "mp4" : "png")}`;
  return WRITERS[language]({ job, url: `${origin}/${route}`, origin, file });
}

export const canCopyAs = (language, task) => language !== "openai" || !(isVideo(task) || hasPictures(task));

const hasPictures = (task) => PICTURES.some((name) => name in jobToRepeat(task));

const json = (value) => JSON.stringify(value, null, 2);

const WRITERS = {
  curl: ({ job, url, origin, file }) => `task=$(curl -sS --fail-with-body '${url}' \\
  -H "Authorization: Bearer $FLUX_API_KEY" -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(job).replaceAll("'", "'\\''")}' | sed 's/.*"task_id": *"\\([^"]*\\)".*/\\1/')
curl -sS --fail-with-body -H "Authorization: Bearer $FLUX_API_KEY" \\
  "${origin}/task/$task/result?wait=60" -o '${file}'
`,
  python: ({ job, url, origin, file }) => `import json
import os
import urllib.request

headers = {"Authorization": "Bearer " + os.environ["FLUX_API_KEY"], "Content-Type": "application/json"}
job = json.loads(r'''${json(job).replaceAll("'''", "\\u0027\\u0027\\u0027")}''')

request = urllib.request.Request("${url}", json.dumps(job).encode(), headers)
with urllib.request.urlopen(request) as answer:
    task = json.load(answer)["task_id"]
request = urllib.request.Request("${origin}/task/" + task + "/result?wait=60", headers=headers)
with urllib.request.urlopen(request) as answer, open("${file}", "wb") as file:
    file.write(answer.read())
`,
  javascript: ({ job, url, origin, file }) => `import { writeFile } from "node:fs/promises";

const headers = { Authorization: \`Bearer \${process.env.FLUX_API_KEY}\`, "Content-Type": "application/json" };
const job = ${json(job)};

const created = await fetch("${url}", { method: "POST", headers, body: JSON.stringify(job) });
if (!created.ok) throw new Error(await created.text());
const { task_id } = await created.json();
const made = await fetch(\`${origin}/task/\${task_id}/result?wait=60\`, { headers });
if (!made.ok) throw new Error(await made.text());
await writeFile("${file}", Buffer.from(await made.arrayBuffer()));
`,
  openai: ({ job, origin, file }) => {
    const rest = Object.fromEntries(Object.entries(job).filter(([name]) => !OF_OPENAI.includes(name)));
    return `import base64
import json
import os

from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=os.environ["FLUX_API_KEY"])
made = client.images.generate(
    prompt=json.loads(r'''${JSON.stringify(job.prompt ?? "").replaceAll("'''", "\\u0027\\u0027\\u0027")}'''),
${job.width ? `    size="${job.width}x${job.height}",\n` : ""}    n=${job.num_images ?? 1},
    response_format="b64_json",
    extra_body=json.loads(r'''${JSON.stringify(rest).replaceAll("'''", "\\u0027\\u0027\\u0027")}'''),
)
with open("${file}", "wb") as file:
    file.write(base64.b64decode(made.data[0].b64_json))
`;
  },
};
