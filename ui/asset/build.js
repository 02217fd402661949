// Bundles the front end into dist/ under content-hashed names and writes the
// manifest that package asset reads. Run through `npm run build`.
import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
for (const name of readdirSync(dist)) {
  if (name !== "README") rmSync(join(dist, name), { recursive: true });
}

const result = await esbuild.build({
  absWorkingDir: here,
  entryPoints: { app: "js/main.js", style: "css/app.css" },
  outdir: "dist",
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome123", "firefox120", "safari17.5"], // light-dark() and nesting
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

/** @type {Record<string, string>} */
const manifest = {};
for (const out of Object.keys(result.metafile.outputs)) {
  const name = basename(out);
  manifest[name.replace(/-[A-Z0-9]{8}(\.\w+)$/, "$1")] = name;
}
const icon = readFileSync(join(here, "favicon.svg"));
const iconName = `favicon-${createHash("sha256").update(icon).digest("hex").slice(0, 8)}.svg`;
copyFileSync(join(here, "favicon.svg"), join(dist, iconName));
manifest["favicon.svg"] = iconName;
writeFileSync(join(dist, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
console.log(Object.values(manifest).join("\n"));
