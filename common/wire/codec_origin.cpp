#include "common/wire/codec_origin.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "common/wire/protocol.hpp"

namespace tessera::protocol {
namespace {

// The start of a msgpack value: what it is, and its number, its bytes or its elements.
struct Head {
  enum class Kind : std::uint8_t { kUnsigned, kText, kBytes, kArray, kMap };
  Kind kind = Kind::kBytes;
  std::uint64_t size = 0;
};
using Kind = Head::Kind;

// Walks msgpack from its front. Whatever is not whole is nothing.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::optional<Head> head() {
    const auto type = static_cast<unsigned>(number(1).value_or(0xC1));
    if (type < 0x80) {
      return Head{Kind::kUnsigned, type};
    }
    if (type < 0x90) {
      return Head{Kind::kMap, type & 15U};
    }
    if (type < 0xA0) {
      return Head{Kind::kArray, type & 15U};
    }
    if (type < 0xC0) {
      return Head{Kind::kText, type & 31U};
    }
    return type < 0xE0 ? long_head(type) : Head{};  // From 0xE0 on: -32 to -1, in this byte.
  }

  // The value of a head with Kind::kText.
  std::optional<std::string> text(const Head& head) {
    if (head.kind != Kind::kText || head.size > bytes_.size()) {
      return std::nullopt;
    }
    std::string text(reinterpret_cast<const char*>(bytes_.data()), head.size);
    bytes_ = bytes_.subspan(head.size);
    return text;
  }

  // All that belongs to a value whose head was read. Each turn takes a byte at least.
  bool skip(Head head) {
    for (std::uint64_t left = 0;;) {
      if (head.kind == Kind::kText || head.kind == Kind::kBytes) {
        if (head.size > bytes_.size()) {
          return false;
        }
        bytes_ = bytes_.subspan(head.size);
      } else if (head.kind != Kind::kUnsigned) {
        left += head.kind == Kind::kMap ? 2 * head.size : head.size;
      }
      if (left == 0) {
        return true;
      }
      const auto next = left <= bytes_.size() ? this->head() : std::nullopt;
      if (!next) {
        return false;
      }
      head = *next;
      --left;
    }
  }

 private:
  // A big-endian number of so many bytes.
  std::optional<std::uint64_t> number(std::size_t bytes) {
    if (bytes > bytes_.size()) {
      return std::nullopt;
    }
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i) {
      value = value << 8U | std::to_integer<std::uint64_t>(bytes_[i]);
    }
    bytes_ = bytes_.subspan(bytes);
    return value;
  }

  std::optional<Head> sized(Kind kind, std::size_t bytes, std::uint64_t more = 0) {
    const auto size = number(bytes);
    return size ? std::optional(Head{kind, *size + more}) : std::nullopt;
  }

  // A signed number; one below zero is as good as any other bytes here.
  std::optional<Head> signed_number(std::size_t bytes) {
    const auto value = number(bytes);
    if (!value) {
      return std::nullopt;
    }
    const bool negative = (*value >> (8 * bytes - 1) & 1U) != 0;
    return negative ? Head{} : Head{Kind::kUnsigned, *value};
  }

  // Types 0xC0 to 0xDF of the msgpack specification.
  std::optional<Head> long_head(unsigned type) {
    switch (type) {
      case 0xC0:  // nil
      case 0xC2:  // false
      case 0xC3:  // true
        return Head{};
      case 0xC4:  // bin of 8, 16 and 32 bits of length
      case 0xC5:
      case 0xC6:
        return sized(Kind::kBytes, std::size_t{1} << (type - 0xC4));
      case 0xC7:  // ext, with a byte of type before its bytes
      case 0xC8:
      case 0xC9:
        return sized(Kind::kBytes, std::size_t{1} << (type - 0xC7), 1);
      case 0xCA:  // float
      case 0xCB:  // double
        return Head{Kind::kBytes, type == 0xCA ? 4U : 8U};
      case 0xCC:  // unsigned
      case 0xCD:
      case 0xCE:
      case 0xCF:
        return sized(Kind::kUnsigned, std::size_t{1} << (type - 0xCC));
      case 0xD0:  // signed
      case 0xD1:
      case 0xD2:
      case 0xD3:
        return signed_number(std::size_t{1} << (type - 0xD0));
      case 0xD4:  // ext of 1 to 16 bytes
      case 0xD5:
      case 0xD6:
      case 0xD7:
      case 0xD8:
        return Head{Kind::kBytes, (1U << (type - 0xD4)) + 1U};
      case 0xD9:  // str
      case 0xDA:
      case 0xDB:
        return sized(Kind::kText, std::size_t{1} << (type - 0xD9));
      case 0xDC:  // array
      case 0xDD:
        return sized(Kind::kArray, std::size_t{2} << (type - 0xDC));
      case 0xDE:  // map
      case 0xDF:
        return sized(Kind::kMap, std::size_t{2} << (type - 0xDE));
      default:
        return std::nullopt;
    }
  }

  std::span<const std::byte> bytes_;
};

template <typename M>
constexpr bool kHasRequestId = requires(M& m) { m.request_id; };

template <std::size_t... I>
constexpr auto types_with_request_id(std::index_sequence<I...>) {
  return std::array{kHasRequestId<std::variant_alternative_t<I, AnyMessage>>...};
}
constexpr auto kTypesWithRequestId =
    types_with_request_id(std::make_index_sequence<std::variant_size_v<AnyMessage>>{});

template <typename M, std::size_t I = 0>
constexpr std::size_t type_of() {
  if constexpr (std::is_same_v<M, std::variant_alternative_t<I, AnyMessage>>) {
    return I;
  } else {
    return type_of<M, I + 1>();
  }
}

// All messages of a newer version that ask for something have their request id in field 1, too.
bool has_request_id(std::uint64_t type) {
  return type >= kTypesWithRequestId.size() || kTypesWithRequestId.at(type);
}

void read_fields(Cursor& cursor, std::uint64_t type, std::uint64_t count, Origin& origin) {
  std::optional<std::uint64_t> request;  // Of two, the decoder takes the first.
  std::optional<std::uint32_t> chunk;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto key = cursor.head();
    if (!key || !cursor.skip(*key)) {
      break;
    }
    const auto value = cursor.head();
    if (!value) {
      break;
    }
    const std::uint64_t field = key->kind == Kind::kUnsigned ? key->size : 0;
    const bool is_number = value->kind == Kind::kUnsigned;
    if (field == 1 && has_request_id(type) && is_number && !request) {
      request = value->size;
    } else if (type == type_of<SubmitChunk>() && field == 1 && value->kind == Kind::kText &&
               value->size <= kNameBytesMax && origin.job_id.empty()) {
      origin.job_id = cursor.text(*value).value_or("");
      continue;
    } else if (type == type_of<SubmitChunk>() && field == 2 && is_number && !chunk &&
               value->size <= std::numeric_limits<std::uint32_t>::max()) {
      chunk = static_cast<std::uint32_t>(value->size);
    }
    if (!cursor.skip(*value)) {
      break;
    }
  }
  origin.request_id = request.value_or(0);
  origin.chunk = chunk.value_or(0);
  if (!chunk) {
    origin.job_id.clear();
  }
}

}  // namespace

Origin read_origin(std::span<const std::byte> header) {
  Origin origin;
  Cursor cursor(header.first(std::min(header.size(), kHeaderBytesMax)));
  const auto root = cursor.head();
  const auto version = cursor.head();
  const auto type = cursor.head();
  const auto fields = cursor.head();
  const bool readable = root && root->kind == Kind::kArray && root->size == 3 && version &&
                        version->kind == Kind::kUnsigned && version->size == kVersionMajor &&
                        type && type->kind == Kind::kUnsigned && fields &&
                        fields->kind == Kind::kMap;
  if (readable) {
    read_fields(cursor, type->size, fields->size, origin);
  }
  return origin;
}

}  // namespace tessera::protocol
