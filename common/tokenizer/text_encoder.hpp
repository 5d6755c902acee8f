#pragma once

#include <cstdint>
#include <string_view>

#include "common/result.hpp"
#include "common/tokenizer/base/id_buffer.hpp"
#include "common/tokenizer/bpe/bpe.hpp"
#include "common/tokenizer/bpe/safe_cuts.hpp"
#include "common/tokenizer/bpe/word_cache.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"
#include "common/tokenizer/text/pretokenizer.hpp"

namespace tessera::tokenizer {

// Normalised text to ids: split into pieces, each piece to its ids by the cheapest exact way. Most
// pieces of real text are short and seen before: one look-up in the word cache. Long pieces are cut
// first where no token can cross. Const after construction; any thread, each with its own scratch.
class TextEncoder {
 public:
  struct Scratch {
    ShortWordCache short_words;
    LongWordCache long_words;
    Bpe::Scratch bpe;

    void forget_words() {
      short_words.clear();
      long_words.clear();
    }
  };

  // kInvalidArgument as Bpe::make.
  static Result<TextEncoder> make(const TokenizerSpec& spec);

  // Appends the ids of `text`, which is valid UTF-8 without added tokens.
  void encode(std::string_view text, Scratch& scratch, IdBuffer& out) const;

 private:
  TextEncoder(const TokenizerSpec& spec, Bpe bpe);

  class Batch;

  void add_piece(std::string_view piece, Batch& batch) const;
  template <typename Cache, typename Key>
  std::int32_t* encode_new(std::string_view piece, const Key& key, Cache& cache, Scratch& scratch,
                           std::int32_t* out) const;

  Bpe bpe_;
  Pretokenizer pretokenizer_;
  SafeCuts cuts_;
};

}  // namespace tessera::tokenizer
