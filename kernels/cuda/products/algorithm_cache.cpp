#include "kernels/cuda/products/algorithm_cache.hpp"

#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace tessera::kernels::cuda {
namespace {

constexpr std::string_view kFormat = "tessera matmul choices 1";

std::string to_hex(const AlgorithmCache::Algorithm& algorithm) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : algorithm) {
    text += kDigits[std::to_integer<std::size_t>(byte) >> 4];
    text += kDigits[std::to_integer<std::size_t>(byte) & 15];
  }
  return text;
}

int digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::optional<AlgorithmCache::Algorithm> from_hex(const std::string& text, std::size_t bytes) {
  if (text.size() != 2 * bytes) {
    return std::nullopt;
  }
  AlgorithmCache::Algorithm algorithm;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]);
    const int low = digit(text[i + 1]);
    if (high < 0 || low < 0) {
      return std::nullopt;
    }
    algorithm.push_back(static_cast<std::byte>(16 * high + low));
  }
  return algorithm;
}

}  // namespace

std::int64_t rows_bucket(std::int64_t rows) {
  const auto value = static_cast<std::uint64_t>(rows < 1 ? 1 : rows);
  const std::uint64_t octave = std::bit_ceil(value) / 2;
  const std::uint64_t step = octave < 64 ? 16 : octave / 4;
  return static_cast<std::int64_t>((value + step - 1) / step * step);
}

std::string default_algorithm_cache_file() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache == nullptr && home == nullptr) {
    return "";
  }
  const auto base =
      cache != nullptr ? std::filesystem::path(cache) : std::filesystem::path(home) / ".cache";
  std::error_code failed;
  std::filesystem::create_directories(base / "tessera", failed);
  return failed ? "" : (base / "tessera" / "matmul_choices").string();
}

AlgorithmCache::AlgorithmCache(std::string path, std::string machine, std::size_t algorithm_bytes)
    : path_(std::move(path)), machine_(std::move(machine)), algorithm_bytes_(algorithm_bytes) {
  choices_ = read();
}

const AlgorithmCache::Algorithm* AlgorithmCache::find(const MatmulKey& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? nullptr : &found->second;
}

void AlgorithmCache::put(const MatmulKey& key, Algorithm algorithm) {
  choices_[key] = std::move(algorithm);
  changed_ = true;
}

std::map<MatmulKey, AlgorithmCache::Algorithm> AlgorithmCache::read() const {
  std::map<MatmulKey, Algorithm> choices;
  std::ifstream file(path_);
  std::string line;
  if (path_.empty() || !std::getline(file, line) || line != kFormat || !std::getline(file, line) ||
      line != machine_) {
    return {};
  }
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    MatmulKey key;
    std::string hex;
    if (!(fields >> key.rows >> key.n >> key.k >> key.accumulate >> hex)) {
      return {};
    }
    std::optional<Algorithm> algorithm = from_hex(hex, algorithm_bytes_);
    if (!algorithm) {
      return {};
    }
    choices[key] = std::move(*algorithm);
  }
  return choices;
}

bool AlgorithmCache::save() {
  if (path_.empty() || !changed_) {
    return true;
  }
  std::map<MatmulKey, Algorithm> merged = read();
  for (const auto& [key, algorithm] : choices_) {
    merged[key] = algorithm;
  }
  const std::string temporary = path_ + "." + std::to_string(::getpid());
  {
    std::ofstream file(temporary);
    file << kFormat << '\n' << machine_ << '\n';
    for (const auto& [key, algorithm] : merged) {
      file << key.rows << ' ' << key.n << ' ' << key.k << ' ' << key.accumulate << ' '
           << to_hex(algorithm) << '\n';
    }
    if (!file.flush()) {
      return false;
    }
  }
  changed_ = false;
  return std::rename(temporary.c_str(), path_.c_str()) == 0;
}

}  // namespace tessera::kernels::cuda
