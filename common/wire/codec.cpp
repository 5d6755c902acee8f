#include "common/wire/codec.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <msgpack.hpp>
#include <type_traits>

#include "common/wire/codec_fields.hpp"

namespace tessera::protocol {
namespace {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian");

constexpr std::uint32_t kDepthMax = 7;
constexpr std::uint64_t kElementsMax = 1U << 17;  // Of all arrays and maps of one header.
constexpr std::uint64_t kVectorBytesMax = kPayloadBytesMax;

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

// Vectors of plain numbers and of number pairs travel as one `bin`.
template <typename T>
constexpr bool kIsPlain = std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::uint32_t> ||
                          std::is_same_v<T, std::uint64_t> || std::is_same_v<T, double> ||
                          std::is_same_v<T, std::pair<std::uint32_t, std::uint32_t>>;

struct FieldCount {
  std::uint32_t count = 0;
  template <typename T>
  void operator()(int, T&) {
    ++count;
  }
};

class Writer {
 public:
  explicit Writer(msgpack::packer<msgpack::sbuffer>& packer) : packer_(packer) {}

  template <typename T>
  void operator()(int number, T& value) {
    packer_.pack(number);
    write(value);
  }

  template <typename T>
  void write(T& value) {
    if constexpr (std::is_enum_v<T>) {
      packer_.pack(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (IsVector<T>::value) {
      write_vector(value);
    } else if constexpr (std::is_aggregate_v<T>) {
      FieldCount counter;
      fields(counter, value);
      packer_.pack_map(counter.count);
      fields(*this, value);
    } else {
      packer_.pack(value);
    }
  }

 private:
  template <typename T>
  void write_vector(std::vector<T>& values) {
    if constexpr (kIsPlain<T>) {
      const auto bytes = static_cast<std::uint32_t>(values.size() * sizeof(T));
      packer_.pack_bin(bytes);
      packer_.pack_bin_body(reinterpret_cast<const char*>(values.data()), bytes);
    } else {
      packer_.pack_array(static_cast<std::uint32_t>(values.size()));
      for (T& value : values) {
        write(value);
      }
    }
  }

  msgpack::packer<msgpack::sbuffer>& packer_;
};

// Reads the fields of one map; the first field of a wrong type makes it fail, with its number.
class Reader {
 public:
  explicit Reader(const msgpack::object_map& map) : map_(&map) {}

  template <typename T>
  void operator()(int number, T& value) {
    const msgpack::object* object = find(number);
    if (object == nullptr || failed_field_ != 0) {
      return;
    }
    if (!read(*object, value)) {
      failed_field_ = number;
    }
  }

  int failed_field() const { return failed_field_; }

 private:
  const msgpack::object* find(int number) const {
    for (std::uint32_t i = 0; i < map_->size; ++i) {
      const auto& entry = map_->ptr[i];
      if (entry.key.type == msgpack::type::POSITIVE_INTEGER &&
          entry.key.via.u64 == static_cast<std::uint64_t>(number)) {
        return &entry.val;
      }
    }
    return nullptr;
  }

  template <typename T>
  static bool read(const msgpack::object& object, T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      value = object.type == msgpack::type::BOOLEAN && object.via.boolean;
      return object.type == msgpack::type::BOOLEAN;
    } else if constexpr (std::is_enum_v<T>) {
      std::underlying_type_t<T> number{};
      if (!read(object, number)) {
        return false;
      }
      value = static_cast<T>(number);  // The range is judged by `in_range`.
      return in_range(value);
    } else if constexpr (std::is_unsigned_v<T>) {
      if (object.type != msgpack::type::POSITIVE_INTEGER ||
          object.via.u64 > std::numeric_limits<T>::max()) {
        return false;
      }
      value = static_cast<T>(object.via.u64);
      return true;
    } else if constexpr (std::is_same_v<T, double>) {
      return read_double(object, value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (object.type != msgpack::type::STR) {
        return false;
      }
      value.assign(object.via.str.ptr, object.via.str.size);
      return true;
    } else if constexpr (IsVector<T>::value) {
      return read_vector(object, value);
    } else {
      if (object.type != msgpack::type::MAP) {
        return false;
      }
      Reader nested(object.via.map);
      fields(nested, value);
      return nested.failed_field_ == 0;
    }
  }

  static bool read_double(const msgpack::object& object, double& value) {
    if (object.type == msgpack::type::FLOAT32 || object.type == msgpack::type::FLOAT64) {
      value = object.via.f64;
      return true;
    }
    // msgpack-c writes a double without a fraction as an integer.
    if (object.type == msgpack::type::NEGATIVE_INTEGER) {
      value = static_cast<double>(object.via.i64);
      return true;
    }
    value = static_cast<double>(object.via.u64);
    return object.type == msgpack::type::POSITIVE_INTEGER;
  }

  template <typename T>
  static bool read_vector(const msgpack::object& object, std::vector<T>& out) {
    if constexpr (kIsPlain<T>) {
      if (object.type != msgpack::type::BIN || object.via.bin.size % sizeof(T) != 0) {
        return false;
      }
      out.resize(object.via.bin.size / sizeof(T));
      if (!out.empty()) {
        std::memcpy(static_cast<void*>(out.data()), object.via.bin.ptr, object.via.bin.size);
      }
      return true;
    } else {
      if (object.type != msgpack::type::ARRAY) {
        return false;
      }
      out.resize(object.via.array.size);
      for (std::uint32_t i = 0; i < object.via.array.size; ++i) {
        if (!read(object.via.array.ptr[i], out[i])) {
          return false;
        }
      }
      return true;
    }
  }

  static bool in_range(ErrorCode code) { return code <= ErrorCode::kInternal; }
  static bool in_range(Lane lane) { return lane <= Lane::kBulk; }
  static bool in_range(Truncate truncate) { return truncate <= Truncate::kRight; }
  static bool in_range(VectorType type) { return type <= VectorType::kFloat16; }
  static bool in_range(JobState state) { return state <= JobState::kCancelled; }
  static bool in_range(MetricType type) { return type <= MetricType::kHistogram; }

  const msgpack::object_map* map_;
  int failed_field_ = 0;
};

// Walks the header without allocating: depth, element counts, and that every count could be met by
// the bytes that are there.
class BoundsVisitor : public msgpack::null_visitor {
 public:
  explicit BoundsVisitor(std::size_t bytes)
      : budget_(std::min<std::uint64_t>(bytes, kElementsMax)) {}
  bool start_array(std::uint32_t elements) { return enter(elements); }
  bool start_map(std::uint32_t pairs) { return enter(2ULL * pairs); }
  bool end_array() { return leave(); }
  bool end_map() { return leave(); }
  bool visit_ext(const char*, std::uint32_t) { return false; }
  void parse_error(std::size_t, std::size_t) { failed_ = true; }
  void insufficient_bytes(std::size_t, std::size_t) { failed_ = true; }
  bool failed() const { return failed_; }

 private:
  bool enter(std::uint64_t elements) {
    if (++depth_ > kDepthMax || elements > budget_) {
      return false;
    }
    budget_ -= elements;
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }

  std::uint64_t budget_;
  std::uint32_t depth_ = 0;
  bool failed_ = false;
};

Bytes* payload_of(EmbedRequest& m) { return &m.items.payload; }
Bytes* payload_of(SubmitChunk& m) { return &m.items.payload; }
Bytes* payload_of(EmbedReply& m) { return &m.results.payload; }
Bytes* payload_of(ChunkResult& m) { return &m.results.payload; }
Bytes* payload_of(BatchResult& m) { return &m.payload; }
Bytes* payload_of(Batch& m) { return &m.payload; }
Bytes* payload_of(RecordPut& m) { return &m.payload; }
Bytes* payload_of(RecordsReply& m) { return &m.payload; }
Bytes* payload_of(EmbedRequests& m) { return &m.payload; }
Bytes* payload_of(EmbedReplies& m) { return &m.payload; }
template <typename T>
Bytes* payload_of(T&) {
  return nullptr;
}

Error malformed(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

template <std::size_t... I>
Message make_message(std::size_t index, std::index_sequence<I...>) {
  Message message;
  (void)((index == I ? (message.emplace<I>(), true) : false) || ...);
  return message;
}

Result<msgpack::object_handle> unpack_header(std::span<const std::byte> header) {
  if (header.size() > kHeaderBytesMax) {
    return malformed("the message header is longer than 1 MiB");
  }
  const auto* data = reinterpret_cast<const char*>(header.data());
  BoundsVisitor bounds(header.size());
  std::size_t offset = 0;
  if (!msgpack::parse(data, header.size(), offset, bounds) || bounds.failed() ||
      offset != header.size()) {
    return malformed("the message header is not msgpack within its limits");
  }
  const auto keep_in_place = [](msgpack::type::object_type, std::size_t, void*) { return true; };
  return msgpack::unpack(data, header.size(), keep_in_place);
}

}  // namespace

Frames encode(Message message) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(3);
  packer.pack(kVersionMajor);
  packer.pack(static_cast<std::uint32_t>(message.index()));
  Frames frames;
  std::visit(
      [&](auto& m) {
        Writer writer(packer);
        writer.write(m);
        if (Bytes* payload = payload_of(m)) {
          frames.payload = std::move(*payload);
        }
      },
      message);
  CHECK(buffer.size() <= kHeaderBytesMax);
  CHECK(frames.payload.size() <= kVectorBytesMax);
  const auto* data = reinterpret_cast<const std::byte*>(buffer.data());
  frames.header.assign(data, data + buffer.size());
  return frames;
}

Result<Message> decode(std::span<const std::byte> header, Bytes payload) {
  if (payload.size() > kPayloadBytesMax) {
    return malformed("the message payload is longer than 64 MiB");
  }
  auto unpacked = unpack_header(header);
  if (!unpacked) {
    return unpacked.error();
  }
  const msgpack::object& root = unpacked->get();
  if (root.type != msgpack::type::ARRAY || root.via.array.size != 3 ||
      root.via.array.ptr[0].type != msgpack::type::POSITIVE_INTEGER) {
    return malformed("the message header is not [version, type, fields]");
  }
  const auto& [version, type, body] =
      *reinterpret_cast<const msgpack::object(*)[3]>(root.via.array.ptr);
  if (version.via.u64 != kVersionMajor) {
    return Error{ErrorCode::kUnsupportedVersion,
                 "the peer speaks protocol version " + std::to_string(version.via.u64) +
                     ", this process " + std::to_string(kVersionMajor)};
  }
  if (type.type != msgpack::type::POSITIVE_INTEGER || body.type != msgpack::type::MAP ||
      type.via.u64 >= std::variant_size_v<AnyMessage>) {
    return malformed("the message type is unknown");
  }
  Message message =
      make_message(type.via.u64, std::make_index_sequence<std::variant_size_v<AnyMessage>>{});
  const int failed_field = std::visit(
      [&](auto& m) {
        Reader reader(body.via.map);
        fields(reader, m);
        if (Bytes* target = payload_of(m)) {
          *target = std::move(payload);
        }
        return reader.failed_field();
      },
      message);
  if (failed_field != 0) {
    return malformed(std::string(name_of(message)) + ": field " + std::to_string(failed_field) +
                     " has a wrong type or value");
  }
  return message;
}

}  // namespace tessera::protocol
