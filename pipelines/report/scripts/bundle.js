// Bundles src/ with Plot and D3 into ../assets/report.js, which the page holds; --check compares instead of writing.
// The digest in its first line is what a Python test compares with the sources, so that a stale bundle is seen
// where there is no Node.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const bundle = join(here, "..", "assets", "report.js");
/** @param {string} name */
const read = (name) => readFileSync(join(here, name), "utf8");

/** Licences of what is bundled: each text once, below those that it is from. @param {string[]} inputs */
function licences(inputs) {
  const packages = new Set(inputs.flatMap((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? []));
  /** @type {Map<string, string[]>} */
  const holders = new Map();
  for (const name of [...packages].sort()) {
    const folder = `node_modules/${name}`;
    const file = readdirSync(join(here, folder)).find((each) => /^licen[cs]e/i.test(each));
    if (!file) throw new Error(`${name} has no licence`);
    const lines = read(`${folder}/${file}`).split("\n");
    const text = lines
      .filter((line) => !/^\s*Copyright/.test(line))
      .join("\n")
      .replace(/\s+/g, " ")
      .trim();
    const copyright = lines.filter((line) => /^\s*Copyright/.test(line)).map((line) => line.trim());
    const { version } = JSON.parse(read(`${folder}/package.json`));
    holders.set(text, [...(holders.get(text) ?? []), [`${name} ${version}`, ...copyright].join(", ")]);
  }
  return [...holders].map(([text, names]) => `${names.join("\n")}\n${text}`).join("\n\n");
}

const digest = createHash("sha256");
const sources = readdirSync(join(here, "src")).map((name) => `src/${name}`);
for (const name of [...sources, "bundle.js", "package-lock.json"].sort()) digest.update(`${name}\n`).update(read(name));
const made = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.js"],
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "iife",
  target: "es2022",
  metafile: true,
  write: false,
});
const text = [
  `/* Made from pipelines/report/scripts, sha256-${digest.digest("hex")}`,
  "It holds Observable Plot, D3 and what they are made of:",
  `${licences(Object.keys(made.metafile.inputs))} */`,
  made.outputFiles[0].text,
].join("\n\n");
if (!process.argv.includes("--check")) writeFileSync(bundle, text);
else if (readFileSync(bundle, "utf8") !== text) {
  console.error("assets/report.js is not what its sources make: npm run build in pipelines/report/scripts");
  process.exitCode = 1;
}
