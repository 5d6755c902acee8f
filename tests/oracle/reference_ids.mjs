// Reads one JSON string a line on stdin, prints one JSON list of ids a line: the reference's side of
// `tessera tokenize --json`. Usage: node reference_ids.mjs TOKENIZER_JSON [--no-template]
import { createInterface } from "node:readline";
import { Tokenizer } from "tokenizers";

const [file, ...flags] = process.argv.slice(2);
const addSpecialTokens = !flags.includes("--no-template");
const tokenizer = Tokenizer.fromFile(file);
const BATCH = 256;

async function flush(texts) {
  const encodings = await tokenizer.encodeBatch(texts, { addSpecialTokens });
  const lines = encodings.map((encoding) => JSON.stringify(encoding.getIds()));
  if (!process.stdout.write(lines.join("\n") + "\n")) {
    await new Promise((resolve) => process.stdout.once("drain", resolve));
  }
}

let texts = [];
let held = 0;
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  texts.push(JSON.parse(line));
  held += line.length;
  if (texts.length === BATCH || held > 4_000_000) {
    await flush(texts);
    texts = [];
    held = 0;
  }
}
if (texts.length > 0) await flush(texts);
