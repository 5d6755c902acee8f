#include "common/model/fingerprint.hpp"

#include <sodium.h>

#include <algorithm>
#include <vector>

#include "common/model/model_config.hpp"
#include "common/model/small_file.hpp"

namespace tessera {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPagesPerTensor = 16;
constexpr std::size_t kTokenizerBytesMax = 256 << 20;

class Hasher {
 public:
  Hasher() { crypto_generichash_init(&state_, nullptr, 0, std::tuple_size_v<Digest>); }

  void raw(std::span<const std::byte> bytes) {
    crypto_generichash_update(&state_, reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size());
  }
  // Length first, so that two neighbouring fields cannot be split in another way.
  void field(std::span<const std::byte> bytes) {
    const std::uint64_t size = bytes.size();
    raw(std::as_bytes(std::span(&size, 1)));
    raw(bytes);
  }
  void field(std::string_view text) { field(std::as_bytes(std::span(text))); }

  Digest finish() {
    Digest digest;
    crypto_generichash_final(&state_, reinterpret_cast<unsigned char*>(digest.data()),
                             digest.size());
    return digest;
  }

 private:
  crypto_generichash_state state_;
};

void hash_samples(Hasher& hasher, std::span<const std::byte> bytes) {
  if (bytes.size() <= kPage * kPagesPerTensor) {
    hasher.raw(bytes);
    return;
  }
  const std::size_t room = bytes.size() - kPage;
  for (std::size_t i = 0; i < kPagesPerTensor; ++i) {
    hasher.raw(bytes.subspan(room / (kPagesPerTensor - 1) * i, kPage));
  }
  hasher.raw(bytes.last(kPage));
}

}  // namespace

Digest blake2b(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.raw(bytes);
  return hasher.finish();
}

std::string to_hex(const Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte b : digest) {
    text += kDigits[std::to_integer<std::size_t>(b >> 4)];
    text += kDigits[std::to_integer<std::size_t>(b & std::byte{15})];
  }
  return text;
}

Result<std::string> tokenizer_hash(const std::filesystem::path& model_dir) {
  auto text = read_small_file(model_dir / "tokenizer.json", kTokenizerBytesMax);
  if (!text) {
    return text.error();
  }
  return to_hex(blake2b(std::as_bytes(std::span(*text))));
}

Result<std::string> model_fingerprint(const std::filesystem::path& model_dir,
                                      const SafetensorsFolder& weights,
                                      std::string_view numeric_type) {
  auto config = read_small_file(model_dir / "config.json", kModelConfigBytesMax);
  if (!config) {
    return config.error();
  }
  auto tokenizer = tokenizer_hash(model_dir);
  if (!tokenizer) {
    return tokenizer.error();
  }
  Hasher hasher;
  hasher.field(numeric_type);
  hasher.field(*config);
  hasher.field(*tokenizer);
  std::vector<const SafetensorsFolder::File*> files;
  for (const auto& file : weights.files()) {
    files.push_back(&file);
  }
  std::ranges::sort(files, {}, [](const auto* file) { return file->name; });
  for (const auto* file : files) {
    hasher.field(file->name);
    hasher.field(file->header);
  }
  for (const auto& [name, tensor] : weights.tensors()) {
    hasher.field(name);
    hash_samples(hasher, tensor.bytes);
  }
  return to_hex(hasher.finish());
}

}  // namespace tessera
