// Bundle src/ into the minified file that Django serves, with its source map.
// With `--check`, write nothing and fail if the committed files differ from the result.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = new URL("../", import.meta.url);
const bundle = "realtime/static/realtime/realtime.js";
const licence =
  "// The client of django-channels-realtime, BSD-3-Clause. Made from js/src by `make js`; do not edit.";

const { outputFiles } = await build({
  absWorkingDir: fileURLToPath(root),
  entryPoints: ["js/src/index.js"],
  outfile: bundle,
  bundle: true,
  minify: true,
  sourcemap: "linked", // with the sources inside
  write: false,
  format: "esm",
  target: ["chrome100", "edge100", "firefox97", "safari16"], // as docs/javascript.md says
  charset: "utf8",
  banner: { js: licence },
});

/** @param {URL} file @returns {string | null} null if there is no such file. */
function read(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

for (const [path, suffix] of [[bundle, ".js"], [`${bundle}.map`, ".map"]]) {
  const file = new URL(path, root);
  const { text } = outputFiles.find((output) => output.path.endsWith(suffix)) ?? { text: "" };
  if (!process.argv.includes("--check")) writeFileSync(file, text);
  else if (text !== read(file)) {
    console.error(`${path} is out of date: run make js`);
    process.exitCode = 1;
  }
}
