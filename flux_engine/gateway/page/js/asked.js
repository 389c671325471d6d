// What a task was asked for and what came of it, whichever of its forms the API has told so far.
export const parametersOf = (task) => task.parameters ?? task.result?.parameters ?? task.request ?? {};

export const promptOf = (task) => {
  const asked = parametersOf(task);
  return asked.prompt ?? asked.keyframes?.[0]?.prompt ?? "";
};

export const isVideo = (task) => task.type === "video";

export const countOf = (task) => (isVideo(task) ? 1 : task.images?.length ?? parametersOf(task).num_images ?? 1);

// The shape that the picture will have, so that nothing moves when it comes.
export function shapeOf(task) {
  const file = task.images?.[0] ?? task.video;
  const asked = parametersOf(task);
  const [width, height] = [file?.width ?? asked.width ?? 1, file?.height ?? asked.height ?? 1];
  if (!file && !asked.width && asked.aspect_ratio) return asked.aspect_ratio.replace(":", " / ");
  return `${width} / ${height}`;
}

export const seedOf = (task, index = 0) => task.images?.[index]?.seed ?? (task.seed ?? 0) + index;
