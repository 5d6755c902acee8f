#include "bench/tokenizer/pieces.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string_view>

#include "common/tokenizer/text/normalizer.hpp"
#include "common/tokenizer/text/pretokenizer.hpp"

namespace tessera {
namespace {

void put(std::ofstream& out, std::string_view bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

void write_pieces(const Tokenizer& tokenizer,
                  const std::vector<std::pair<std::string, std::vector<std::string>>>& sets,
                  const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream vocabulary(folder / "vocabulary", std::ios::binary);
  const std::int32_t first_added = tokenizer.suffix_ids().front();  // As in Qwen's files.
  for (std::int32_t id = 0; id < first_added; ++id) {
    put(vocabulary, tokenizer.piece(id));
  }
  const tokenizer::Pretokenizer pretokenizer;
  std::string storage;
  for (const auto& [name, texts] : sets) {
    std::string leaf = name;
    std::ranges::replace(leaf, ' ', '_');
    std::ofstream out(folder / leaf, std::ios::binary);
    for (const std::string& text : texts) {
      const std::string_view normal = tokenizer::Normalizer::instance().normalize(text, storage);
      for (std::size_t begin = 0; begin < normal.size();) {
        const std::size_t end = pretokenizer.piece_end(normal, begin);
        put(out, normal.substr(begin, end - begin));
        begin = end;
      }
    }
  }
}

}  // namespace tessera
