#pragma once

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "clients/gateway/http/message.hpp"
#include "common/model/model_folder.hpp"
#include "common/tokenizer/tokenizer.hpp"
#include "common/wire/protocol.hpp"

namespace tessera::gateway {

// A model folder's tokenizer and prompts, for /tokenize. Const after load.
struct NamedTokenizer {
  Tokenizer tokenizer;
  std::map<std::string, std::string> prompts;
};

// The tokenizers that the gateway was given, by the hash that the wire knows them by.
class Tokenizers {
 public:
  // Reads the folders; throws FatalError naming what is wrong.
  explicit Tokenizers(const std::vector<std::string>& folders);
  // That of the model; none when no folder has just this tokenizer.json.
  std::shared_ptr<const NamedTokenizer> find(const protocol::ModelInfo& model) const;

 private:
  std::map<std::string, std::shared_ptr<const NamedTokenizer>> by_hash_;
};

// [[{"id","text","special","start","stop"}]], as TEI writes them: a text's tokens with their bytes
// in the text; special ones, and all where normalisation changed the text, have no place in it.
std::variant<std::string, http::Problem> token_list(const NamedTokenizer& tokenizer,
                                                    const std::vector<protocol::ItemBlock>& blocks,
                                                    const std::string& prompt_name,
                                                    bool add_special_tokens);

}  // namespace tessera::gateway
