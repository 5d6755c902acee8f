#include "clients/cli/output/npy.hpp"

#include <charconv>
#include <filesystem>
#include <fstream>

#include "common/check.hpp"
#include "common/float16.hpp"

namespace tessera::cli {
namespace {

constexpr std::string_view kMagic{"\x93NUMPY\x01\x00", 8};
constexpr std::uint64_t kSideMax = 1ULL << 40;

// The number behind `key` in the header's Python dictionary; kSideMax + 1 when there is none.
std::uint64_t number_at(std::string_view text, std::size_t& position) {
  while (position < text.size() && (text[position] == ' ' || text[position] == ',')) {
    ++position;
  }
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data() + position, text.data() + text.size(), value);
  position = static_cast<std::size_t>(end - text.data());
  return error == std::errc() ? value : kSideMax + 1;
}

}  // namespace

std::string npy_header(protocol::VectorType type, std::uint64_t rows, std::uint64_t columns) {
  const char* descr = type == protocol::VectorType::kFloat16 ? "<f2" : "<f4";
  std::string dictionary = std::string("{'descr': '") + descr +
                           "', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                           std::to_string(columns) + "), }";
  const std::size_t length = kNpyHeaderBytes - kMagic.size() - 2;
  CHECK(dictionary.size() < length);
  dictionary.resize(length - 1, ' ');
  dictionary.push_back('\n');
  std::string header(kMagic);
  header.push_back(static_cast<char>(length & 0xFF));
  header.push_back(static_cast<char>(length >> 8));
  return header + dictionary;
}

NpyMatrix read_npy(const std::string& path) {
  const auto refuse = [&](const char* why) {
    throw FatalError(path + " is not a matrix that tessera wrote: " + why);
  };
  std::ifstream file(path, std::ios::binary);
  std::string start(10, '\0');
  if (!file.read(start.data(), 10) || !start.starts_with(kMagic)) {
    refuse("no .npy header of version 1.0");
  }
  const auto length = static_cast<std::size_t>(static_cast<unsigned char>(start[8])) |
                      static_cast<std::size_t>(static_cast<unsigned char>(start[9])) << 8;
  std::string header(length, '\0');
  if (!file.read(header.data(), static_cast<std::streamsize>(length))) {
    refuse("its header is cut off");
  }
  const bool half = header.find("'<f2'") != std::string::npos;
  if ((!half && header.find("'<f4'") == std::string::npos) ||
      header.find("'fortran_order': False") == std::string::npos) {
    refuse("it is not row-major float32 or float16");
  }
  std::size_t position = header.find('(');
  position = position == std::string::npos ? header.size() : position + 1;
  NpyMatrix matrix;
  matrix.rows = number_at(header, position);
  matrix.columns = number_at(header, position);
  const std::uint64_t value_bytes = half ? 2 : 4;
  const std::uint64_t file_bytes = std::filesystem::file_size(path);
  if (matrix.rows > kSideMax || matrix.columns == 0 || matrix.columns > (1U << 20) ||
      matrix.rows * matrix.columns * value_bytes > file_bytes - 10 - length) {
    refuse("its shape does not fit its size");
  }
  const std::size_t count = matrix.rows * matrix.columns;
  matrix.values.resize(count);
  if (half) {
    std::vector<std::uint16_t> halves(count);
    file.read(reinterpret_cast<char*>(halves.data()), static_cast<std::streamsize>(2 * count));
    from_float16(halves, matrix.values);
  } else {
    file.read(reinterpret_cast<char*>(matrix.values.data()),
              static_cast<std::streamsize>(4 * count));
  }
  if (!file) {
    refuse("its rows are cut off");
  }
  return matrix;
}

}  // namespace tessera::cli
