#pragma once

#include <string>
#include <string_view>

#include "common/tokenizer/json/byte_alphabet.hpp"
#include "common/tokenizer/text/pretokenizer.hpp"

namespace tessera {

// A whole tokenizer.json with the 256 bytes (in byte order) and a few merges: small enough to
// change each of its bytes. `replace` swaps one part for another before it is returned.
inline std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
    }
    out.push_back(c);
  }
  return out + "\"";
}

inline std::string tiny_tokenizer_json() {
  std::string vocab;
  for (unsigned byte = 0; byte < 256; ++byte) {
    vocab += json_quoted(tokenizer::alphabet_of_byte(static_cast<unsigned char>(byte))) + ":" +
             std::to_string(byte) + ",";
  }
  vocab += R"("ab":256,"abc":257,"Ġa":258,"bc":259)";
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[)"
         R"({"id":260,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,)"
         R"("normalized":false,"special":true},)"
         R"({"id":261,"content":"<|e","single_word":false,"lstrip":false,"rstrip":false,)"
         R"("normalized":false,"special":false}],"normalizer":{"type":"NFC"},)"
         R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":)"
         R"({"Regex":)" +
         json_quoted(tokenizer::kSplitPattern) +
         R"(},"behavior":"Isolated","invert":false},{"type":"ByteLevel",)"
         R"("add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},)"
         R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A",)"
         R"("type_id":0}},{"SpecialToken":{"id":"<|end|>","type_id":0}}],"pair":[],)"
         R"("special_tokens":{"<|end|>":{"id":"<|end|>","ids":[260],"tokens":["<|end|>"]}}},)"
         R"("decoder":null,"model":{"type":"BPE","dropout":null,"unk_token":null,)"
         R"("continuing_subword_prefix":"","end_of_word_suffix":null,"fuse_unk":false,)"
         R"("byte_fallback":false,"ignore_merges":false,"vocab":{)" +
         vocab + R"(},"merges":[["a","b"],["ab","c"],"Ġ a",["b","c"]]}})";
}

inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  return at == std::string::npos ? std::string() : text.replace(at, from.size(), to);
}

}  // namespace tessera
