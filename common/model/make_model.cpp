// A complete model folder out of the shipped configuration files and random weights.

#include <lzma.h>

#include <fstream>
#include <string>

#include "common/check.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/settings/small_file.hpp"
#include "common/model/synthetic_model.hpp"
#include "common/os/data_dir.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPackedBytesMax = 64 << 20;
constexpr std::size_t kTokenizerBytesMax = 256 << 20;
constexpr std::uint64_t kLzmaMemoryMax = 256 << 20;

struct Shape {
  std::string_view name;
  std::string_view config_folder;     // in the shipped data
  std::string_view tokenizer_folder;  // the 8B model uses the very file of the 4B
};
constexpr Shape kShapes[] = {
    {"tiny", "demo-model", "demo-model"},
    {"0.6b", "Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B"},
    {"4b", "Qwen3-Embedding-4B", "Qwen3-Embedding-4B"},
    {"8b", "Qwen3-Embedding-8B", "Qwen3-Embedding-4B"},
};

const Shape& find_shape(std::string_view name) {
  for (const Shape& shape : kShapes) {
    if (shape.name == name) {
      return shape;
    }
  }
  throw FatalError("shape \"" + std::string(name) + "\" is none of tiny, 0.6b, 4b, 8b");
}

void unpack_xz(const fs::path& from, const fs::path& to) {
  const std::string packed = value_or_fatal(read_small_file(from, kPackedBytesMax));
  std::ofstream file(to, std::ios::binary);
  lzma_stream stream = LZMA_STREAM_INIT;
  lzma_ret result = lzma_stream_decoder(&stream, kLzmaMemoryMax, 0);
  stream.next_in = reinterpret_cast<const std::uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  std::string piece(1 << 20, '\0');
  while (result == LZMA_OK && stream.total_out < kTokenizerBytesMax) {
    stream.next_out = reinterpret_cast<std::uint8_t*>(piece.data());
    stream.avail_out = piece.size();
    result = lzma_code(&stream, LZMA_FINISH);
    file.write(piece.data(), static_cast<std::streamsize>(piece.size() - stream.avail_out));
  }
  lzma_end(&stream);
  if (result != LZMA_STREAM_END) {
    throw FatalError(from.string() + " cannot be unpacked");
  }
  if (!file.flush()) {
    throw FatalError(to.string() + " cannot be written");
  }
}

// Everything of a shipped folder but weights, tokenizer and measured results.
void copy_configuration(const fs::path& from, const fs::path& to) {
  fs::copy(from / "1_Pooling", to / "1_Pooling");
  for (const char* name : {"config.json", "config_sentence_transformers.json",
                           "generation_config.json", "modules.json"}) {
    if (fs::exists(from / name)) {
      fs::copy_file(from / name, to / name);
    }
  }
}

}  // namespace

void make_model(const fs::path& dir, std::string_view shape_name, std::uint64_t seed,
                const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  const Shape& shape = find_shape(shape_name);
  const fs::path data = data_dir();
  if (fs::exists(dir / "config.json")) {
    throw FatalError(dir.string() + " already holds a model");
  }
  try {
    fs::create_directories(dir);
    copy_configuration(data / shape.config_folder, dir);
    const fs::path tokenizer = data / shape.tokenizer_folder / "tokenizer.json";
    if (fs::exists(tokenizer)) {
      fs::copy_file(tokenizer, dir / "tokenizer.json");
    } else {
      unpack_xz(tokenizer.string() + ".xz", dir / "tokenizer.json");
    }
  } catch (const fs::filesystem_error& error) {
    throw FatalError(error.what());
  }
  const ModelFolder folder = value_or_fatal(read_model_folder(dir));
  write_synthetic_weights(dir, folder.config, {.seed = seed}, progress);
}

}  // namespace tessera
