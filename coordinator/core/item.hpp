#pragma once

#include <sodium.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/protocol.hpp"
#include "common/result.hpp"

namespace tessera::coordinator {

using Micros = std::int64_t;  // A moment or a span of a clock that never goes back.

using ModelId = std::uint32_t;  // Index of a served model.
using UnitId = std::uint64_t;   // One embed request or one chunk of a job while it is worked on.
using JobId = std::string;

using CacheKey = std::array<std::byte, 32>;

struct CacheKeyHash {
  std::size_t operator()(const CacheKey& key) const {
    std::size_t hash = 0;  // The key is a hash already.
    std::memcpy(&hash, key.data(), sizeof(hash));
    return hash;
  }
};

// The answer for one text at full width, as cached and as every narrower answer is cut from.
struct Embedding {
  std::uint32_t tokens = 0;           // Embedded, the final token included.
  std::uint32_t tokens_cut = 0;       // Removed by truncation.
  std::vector<std::uint16_t> values;  // [hidden_size] float16, unit length
};
using EmbeddingPtr = std::shared_ptr<const Embedding>;

// How one item ended. Exactly one of the two is set once it has.
struct Outcome {
  EmbeddingPtr embedding;
  std::unique_ptr<Error> error;
  protocol::ItemSource source = protocol::ItemSource::kUnsaid;
  bool ended() const { return embedding != nullptr || error != nullptr; }
};

// What a model folder says, and what the tokenizer adds behind a text.
struct ServedModel {
  std::string name;
  std::string tokenizer_hash;  // 64 hex digits
  std::uint32_t hidden_size = 0;
  std::uint32_t max_seqlen = 0;
  std::uint32_t vocab_size = 0;
  std::int32_t final_token = 0;
  std::string query_prefix;       // The folder's own prompt for queries without an instruction.
  std::string document_prefix{};  // Before texts that are no queries.
  // The folder's prompts by name.
  std::map<std::string, std::string, std::less<>> prompts{};
  // Why texts that are no queries must name a prompt; empty: they need not.
  std::string plain_refusal{};
  std::uint32_t default_dimensions = 0;  // Of answers, unless a width is asked for; 0: all.
};

// An EmbedSpec that has been checked against its model.
struct ResolvedSpec {
  ModelId model = 0;
  std::string prefix;            // Before each text; token ids are taken as they are.
  std::uint32_t dimensions = 0;  // 1..hidden_size
  protocol::VectorType vector_type = protocol::VectorType::kFloat32;
  protocol::Truncate truncate = protocol::Truncate::kNone;
  std::uint32_t max_tokens = 0;  // 0 = the model's limit

  // Of one vector in an answer.
  std::size_t row_bytes() const {
    return std::size_t{dimensions} * (vector_type == protocol::VectorType::kFloat32 ? 4 : 2);
  }
};

// kNotFound for an unknown model, kInvalidArgument for a value out of range.
Result<ResolvedSpec> resolve(const protocol::EmbedSpec& spec, std::span<const ServedModel> models);

// Whether the answer to so many items fits one message; kInvalidArgument says how many do.
Result<void> check_answer_fits(const ResolvedSpec& spec, std::size_t items);

// "Instruct: {task}\nQuery:", as the models were trained; no space after the last colon.
std::string query_prefix(std::string_view task);

// The identity of an answer: BLAKE2b-256 over a domain tag, the fingerprint, the truncation rule
// and the item, each preceded by its length where that varies. Computed on bytes, so that a hit
// costs no tokenising. One object per unit: what its items share is absorbed once.
class KeyHasher {
 public:
  KeyHasher(std::string_view fingerprint, const ResolvedSpec& spec, std::uint32_t max_tokens);
  CacheKey text_key(std::string_view text) const;
  CacheKey ids_key(std::span<const std::int32_t> ids) const;

 private:
  crypto_generichash_state shared_;
  std::string_view prefix_;  // Of the spec, which must outlive this.
};

// Whether the text has no character but Unicode white space. Any bytes.
bool is_blank(std::string_view text);

// Token ids that a client sent: checked against the vocabulary, closed by the final token where
// that is missing, cut to `max_tokens` by the rule. Errors: kEmptyText, kInvalidTokenId, kTooLong.
struct PreparedIds {
  std::vector<std::int32_t> ids;
  std::uint32_t tokens_cut = 0;
};
Result<PreparedIds> prepare_ids(std::span<const std::byte> bytes, const ServedModel& model,
                                protocol::Truncate truncate, std::uint32_t max_tokens);

}  // namespace tessera::coordinator
