#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"

namespace tessera {

enum class Truncate : std::uint8_t {
  kNone = 0,   // Too long is an error.
  kLeft = 1,   // Keep the end of the text.
  kRight = 2,  // Keep the start of the text.
};

struct EncodeOptions {
  // Strings such as "<|im_end|>" inside the text become that token, as the reference does it. When
  // false, those that the file marks as special are plain text; the others still become tokens.
  bool special_tokens_in_text = true;
  // Each ill-formed part of the text becomes U+FFFD. When false, it is the error kInvalidUtf8.
  bool replace_invalid_utf8 = false;
  // Add what the file's template adds: for Qwen3-Embedding, "<|endoftext|>" at the end.
  bool add_template = true;
  // What to do with more than `max_tokens`, which counts the template's tokens too: they are always
  // kept, and the text gets the rest. 0 is no limit.
  Truncate truncate = Truncate::kNone;
  std::size_t max_tokens = 0;
};

struct Encoding {
  std::vector<std::int32_t> ids;
  std::size_t tokens_cut = 0;  // How many of the text's tokens truncation removed.
};

// Working memory and word cache of one thread. Not shared between threads; may be used with several
// tokenizers in turn, but each change of tokenizer empties the cache, so keep one per tokenizer.
class EncodeScratch {
 public:
  EncodeScratch();
  ~EncodeScratch();
  EncodeScratch(EncodeScratch&&) noexcept;
  EncodeScratch& operator=(EncodeScratch&&) noexcept;

 private:
  friend class Tokenizer;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Text to token ids by a model folder's tokenizer.json, with ids equal to those of Hugging Face
// tokenizers 0.23.2. Const after load: any number of threads may encode, each with its own scratch.
class Tokenizer {
 public:
  // Reads the file; kNotFound when it cannot be read, kInvalidArgument when it is not valid or asks
  // for something that is not supported, which the message names.
  static Result<Tokenizer> load(const std::filesystem::path& tokenizer_json);
  static Result<Tokenizer> parse(std::string_view tokenizer_json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // kInvalidUtf8; kTooLong when there are more than max_tokens and truncate is kNone;
  // kInvalidArgument when max_tokens leaves no room for the template. The text may be empty.
  Result<Encoding> encode(std::string_view text, const EncodeOptions& options,
                          EncodeScratch& scratch) const;
  // The same with a scratch of its own, for callers that encode a few texts.
  Result<Encoding> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // One more than the highest id; every id that encode gives is below.
  std::int32_t vocab_size() const;
  // The ids that the template puts after the text.
  std::span<const std::int32_t> suffix_ids() const;
  // The bytes or the added string of one id; empty for an id that no token has.
  std::string_view piece(std::int32_t id) const;
  // The id of a string that is looked for in texts before anything else; none for any other.
  std::optional<std::int32_t> added_token(std::string_view content) const;
  std::size_t added_token_count() const;
  // Tokens of a text, template included, to which the file's own truncation cuts; 0: it does not.
  // encode() leaves it to its caller.
  std::size_t truncation_length() const;
  // SHA-256 of the file's bytes.
  const std::array<std::uint8_t, 32>& file_hash() const;

  // What last-token pooling needs: "!" encodes to one token and then the template's own, at least
  // one. A chat model's file, which adds none, is told here.
  Result<void> self_test() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);

  std::unique_ptr<const Impl> impl_;
};

}  // namespace tessera
