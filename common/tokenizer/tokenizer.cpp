#include "common/tokenizer/tokenizer.hpp"

#include <sodium.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <optional>

#include "common/tokenizer/added_tokens.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"
#include "common/tokenizer/text/normalizer.hpp"
#include "common/tokenizer/text/utf8.hpp"
#include "common/tokenizer/text_encoder.hpp"

namespace tessera {
namespace {

using tokenizer::AddedTokenFinder;
using tokenizer::TextEncoder;
using tokenizer::TokenizerSpec;

// Tells one loaded tokenizer from another, so that a scratch never serves stale words.
std::uint64_t next_serial() {
  static std::atomic<std::uint64_t> serial{0};
  return ++serial;
}

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content;
  if (file) {
    std::error_code error;
    content.resize(std::filesystem::file_size(path, error));
    file.read(content.data(), static_cast<std::streamsize>(content.size()));
  }
  if (!file) {
    return Error{ErrorCode::kNotFound, "cannot read " + path.string()};
  }
  return content;
}

Error too_long(std::size_t tokens, std::size_t most) {
  return {ErrorCode::kTooLong, "the text has " + std::to_string(tokens) + " tokens, the limit is " +
                                   std::to_string(most)};
}

}  // namespace

struct EncodeScratch::Impl {
  std::uint64_t serial = 0;  // Of the tokenizer that filled it.
  std::string repaired;
  std::string normalized;
  tokenizer::IdBuffer ids;
  TextEncoder::Scratch words;
};

EncodeScratch::EncodeScratch() : impl_(std::make_unique<Impl>()) {}
EncodeScratch::~EncodeScratch() = default;
EncodeScratch::EncodeScratch(EncodeScratch&&) noexcept = default;
EncodeScratch& EncodeScratch::operator=(EncodeScratch&&) noexcept = default;

struct Tokenizer::Impl {
  explicit Impl(TokenizerSpec parsed) : spec(std::move(parsed)), added_tokens(spec.added_tokens) {}

  void encode_plain(std::string_view text, EncodeScratch::Impl& scratch) const;
  void encode_text(std::string_view text, bool special, EncodeScratch::Impl& scratch) const;

  std::uint64_t serial = next_serial();
  TokenizerSpec spec;
  AddedTokenFinder added_tokens;
  std::optional<TextEncoder> encoder;  // Always there after load; refers to `spec`.
  const tokenizer::Normalizer& normalizer = tokenizer::Normalizer::instance();
  std::int32_t vocab_size = 0;
  std::array<std::uint8_t, 32> file_hash{};
};

// Text without added tokens.
void Tokenizer::Impl::encode_plain(std::string_view text, EncodeScratch::Impl& scratch) const {
  if (spec.normalize_nfc) {
    text = normalizer.normalize(text, scratch.normalized);
  }
  encoder->encode(text, scratch.words, scratch.ids);
}

void Tokenizer::Impl::encode_text(std::string_view text, bool special,
                                  EncodeScratch::Impl& scratch) const {
  std::size_t plain = 0;  // Where the text not yet encoded starts.
  std::size_t from = 0;
  while (const auto match = added_tokens.find(text, from)) {
    from = match->end;
    if (match->special && !special) {
      continue;
    }
    encode_plain(text.substr(plain, match->begin - plain), scratch);
    scratch.ids.reserve_more(1);
    scratch.ids.push(match->id);
    plain = match->end;
  }
  encode_plain(text.substr(plain), scratch);
}

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& tokenizer_json) {
  const Result<std::string> content = read_file(tokenizer_json);
  if (!content) {
    return content.error();
  }
  return parse(*content);
}

Result<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json) {
  Result<TokenizerSpec> spec = tokenizer::parse_tokenizer_json(tokenizer_json);
  if (!spec) {
    return spec.error();
  }
  auto impl = std::make_unique<Impl>(std::move(*spec));
  Result<TextEncoder> encoder = TextEncoder::make(impl->spec);
  if (!encoder) {
    return encoder.error();
  }
  impl->encoder.emplace(std::move(*encoder));
  impl->vocab_size = static_cast<std::int32_t>(impl->spec.vocabulary.id_end());
  for (const tokenizer::AddedToken& token : impl->spec.added_tokens) {
    impl->vocab_size = std::max(impl->vocab_size, token.id + 1);
  }
  crypto_hash_sha256(impl->file_hash.data(),
                     reinterpret_cast<const unsigned char*>(tokenizer_json.data()),
                     tokenizer_json.size());
  return Tokenizer(std::move(impl));
}

Result<Encoding> Tokenizer::encode(std::string_view text, const EncodeOptions& options,
                                   EncodeScratch& scratch_owner) const {
  EncodeScratch::Impl& scratch = *scratch_owner.impl_;
  if (scratch.serial != impl_->serial) {
    if (scratch.serial != 0) {
      scratch.words.forget_words();
    }
    scratch.serial = impl_->serial;
  }
  if (!tokenizer::is_valid_utf8(text)) {
    if (!options.replace_invalid_utf8) {
      return Error{ErrorCode::kInvalidUtf8,
                   "the text is not valid UTF-8 at byte " +
                       std::to_string(tokenizer::first_invalid_utf8(text))};
    }
    scratch.repaired = tokenizer::replace_invalid_utf8(text);
    text = scratch.repaired;
  }
  std::span<const std::int32_t> prefix;
  std::span<const std::int32_t> suffix;
  if (options.add_template) {
    prefix = impl_->spec.prefix_ids;
    suffix = impl_->spec.suffix_ids;
  }
  const std::size_t around = prefix.size() + suffix.size();
  if (options.max_tokens > 0 && options.max_tokens < around) {
    return Error{ErrorCode::kInvalidArgument, "max_tokens leaves no room for the template's " +
                                                  std::to_string(around) + " tokens"};
  }
  scratch.ids.clear();
  impl_->encode_text(text, options.special_tokens_in_text, scratch);

  std::span<const std::int32_t> content = scratch.ids.ids();
  std::size_t cut = 0;
  if (options.max_tokens > 0 && content.size() + around > options.max_tokens) {
    if (options.truncate == Truncate::kNone) {
      return too_long(content.size() + around, options.max_tokens);
    }
    cut = content.size() + around - options.max_tokens;
    content = options.truncate == Truncate::kLeft ? content.subspan(cut)
                                                  : content.first(content.size() - cut);
  }
  Encoding encoding{{}, cut};
  encoding.ids.reserve(content.size() + around);
  encoding.ids.insert(encoding.ids.end(), prefix.begin(), prefix.end());
  encoding.ids.insert(encoding.ids.end(), content.begin(), content.end());
  encoding.ids.insert(encoding.ids.end(), suffix.begin(), suffix.end());
  return encoding;
}

Result<Encoding> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  EncodeScratch scratch;
  return encode(text, options, scratch);
}

std::int32_t Tokenizer::vocab_size() const { return impl_->vocab_size; }

std::span<const std::int32_t> Tokenizer::suffix_ids() const { return impl_->spec.suffix_ids; }

std::string_view Tokenizer::piece(std::int32_t id) const {
  for (const tokenizer::AddedToken& token : impl_->spec.added_tokens) {
    if (token.id == id) {
      return token.content;
    }
  }
  return impl_->spec.vocabulary.piece(id);
}

std::size_t Tokenizer::added_token_count() const { return impl_->spec.added_tokens.size(); }

std::optional<std::int32_t> Tokenizer::added_token(std::string_view content) const {
  for (const tokenizer::AddedToken& token : impl_->spec.added_tokens) {
    if (token.content == content) {
      return token.id;
    }
  }
  return std::nullopt;
}

std::size_t Tokenizer::truncation_length() const { return impl_->spec.truncation_length; }

const std::array<std::uint8_t, 32>& Tokenizer::file_hash() const { return impl_->file_hash; }

Result<void> Tokenizer::self_test() const {
  const Result<Encoding> encoding = encode("!");
  const std::vector<std::int32_t>& ids = encoding->ids;
  if (suffix_ids().empty() ||
      ids.size() != 1 + impl_->spec.prefix_ids.size() + suffix_ids().size()) {
    return Error{ErrorCode::kInvalidArgument,
                 "tokenizer.json: the template adds no token after the text, so it is not the file "
                 "of an embedding model with last-token pooling"};
  }
  return {};
}

}  // namespace tessera
