// Bundle src/ into the one file that Django serves; `--check` only tells whether it is fresh.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const target = new URL("../realtime/static/realtime/realtime.js", import.meta.url);
const banner =
  "// The client of django-channels-realtime, BSD-3-Clause. Made from js/src by `make js`; do not edit.";

const result = await build({
  absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
  entryPoints: ["src/index.js"],
  bundle: true,
  write: false,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  banner: { js: banner },
});
const text = result.outputFiles[0].text;

if (!process.argv.includes("--check")) {
  writeFileSync(target, text);
} else if (text !== readFileSync(target, "utf8")) {
  console.error("realtime/static/realtime/realtime.js is not what js/src makes: run make js");
  process.exit(1);
}
