// What a task was asked for and what came of it, whichever of its forms the API has told so far.
export const parametersOf = (task) => task.parameters ?? task.result?.parameters ?? task.request ?? {};

export const promptOf = (task) => {
  const asked = parametersOf(task);
  return asked.prompt ?? asked.keyframes?.[0]?.prompt ?? "";
};

export const isVideo = (task) => task.type === "video";

// The places that a task takes in the gallery, in the order of its seeds. `file` counts the files of its result; a picture
// that the content filter withheld has none.
export function placesOf(task) {
  const made = task.result?.images ?? [];
  const withheld = new Map((task.result?.withheld ?? []).map((one) => [one.index, one]));
  const count = isVideo(task) ? 1 : made.length + withheld.size || (parametersOf(task).num_images ?? 1);
  let files = 0;
  return Array.from({ length: count }, (_, index) => {
    const kept = withheld.get(index) ?? null;
    const file = kept ? null : files++;
    return { index, file, withheld: kept, seed: kept?.seed ?? made[file]?.seed ?? (task.seed ?? 0) + index };
  });
}

// Whether the content filter withheld all that was made.
export const isWithheld = (task) => task.error?.code === "content_filtered";

// The shape that the picture will have, so that nothing moves when it comes.
export function shapeOf(task) {
  const file = task.result?.images?.[0] ?? task.result?.video;
  const asked = parametersOf(task);
  const [width, height] = [file?.width ?? asked.width ?? 1, file?.height ?? asked.height ?? 1];
  if (!file && !asked.width && asked.aspect_ratio) return asked.aspect_ratio.replace(":", " / ");
  return `${width} / ${height}`;
}

export const seedOf = (task, index = 0) => placesOf(task)[index]?.seed ?? task.seed ?? 0;
