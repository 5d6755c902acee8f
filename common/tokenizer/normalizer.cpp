#include "common/tokenizer/normalizer.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>

#include "common/check.hpp"

namespace tessera::tokenizer {

struct Normalizer::Impl {
  explicit Impl(UErrorCode& status)
      : age_9(icu::UnicodeString(u"[:age=9.0:]"), status),
        filtered(*icu::Normalizer2::getNFCInstance(status), age_9) {}

  icu::UnicodeSet age_9;
  icu::FilteredNormalizer2 filtered;
};

Normalizer::Normalizer() {
  UErrorCode status = U_ZERO_ERROR;
  impl_ = std::make_unique<Impl>(status);
  if (U_FAILURE(status)) {
    throw FatalError(std::string("ICU cannot normalise: ") + u_errorName(status));
  }
  impl_->age_9.freeze();
}

Normalizer::~Normalizer() = default;
Normalizer::Normalizer(Normalizer&&) noexcept = default;
Normalizer& Normalizer::operator=(Normalizer&&) noexcept = default;

std::string_view Normalizer::normalize(std::string_view text, std::string& storage) const {
  // Everything below U+0300, whose lead bytes are below 0xCC, is already in form C.
  const auto below_u0300 = [](char byte) { return static_cast<unsigned char>(byte) < 0xCC; };
  if (std::ranges::all_of(text, below_u0300)) {
    return text;
  }
  UErrorCode status = U_ZERO_ERROR;
  storage.clear();
  icu::StringByteSink<std::string> sink(&storage, static_cast<std::int32_t>(text.size()));
  impl_->filtered.normalizeUTF8(
      0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr,
      status);
  CHECK(U_SUCCESS(status));
  return storage;
}

}  // namespace tessera::tokenizer
