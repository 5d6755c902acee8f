// Speed of the reference, npm `tokenizers`, in this process and one thread, on the texts of JSON
// Lines files: node reference.mjs TOKENIZER_JSON FILE.jsonl... [--bytes N], 1 MB of each unless told.
// Run it where tests/oracle has installed the package. A line: name, MB/s, million tokens/s, tokens.
process.env.TOKENIZERS_PARALLELISM = "false";
process.env.RAYON_NUM_THREADS = "1";
const { readFileSync } = await import("node:fs");
const { basename } = await import("node:path");
const { createRequire } = await import("node:module");
const { pathToFileURL } = await import("node:url");
const require = createRequire(pathToFileURL(process.cwd() + "/"));
const { Tokenizer } = require("tokenizers");

const words = process.argv.slice(2);
const flag = words.indexOf("--bytes");
const limit = flag < 0 ? 1_000_000 : Number(words.splice(flag, 2)[1]);
const [file, ...names] = words;
const tokenizer = Tokenizer.fromFile(file);
for (const name of names) {
  const texts = [];
  let bytes = 0;
  for (const line of readFileSync(name, "utf8").split("\n")) {
    if (line === "" || bytes >= limit) break;
    texts.push(JSON.parse(line));
    bytes += Buffer.byteLength(texts.at(-1));
  }
  let seconds = Infinity;
  let tokens = 0;
  for (let round = 0; round < 2; round++) {
    const start = process.hrtime.bigint();
    tokens = 0;
    for (const text of texts) {
      tokens += (await tokenizer.encode(text, null, { addSpecialTokens: false })).getLength();
    }
    seconds = Math.min(seconds, Number(process.hrtime.bigint() - start) / 1e9);
  }
  const rates = [bytes / 1e6 / seconds, tokens / 1e6 / seconds].map((rate) => rate.toFixed(2));
  console.log(`${basename(name, ".jsonl")} ${rates.join(" ")} ${tokens}`);
}
