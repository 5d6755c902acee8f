#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

namespace tessera::gateway {

// Finds custom_ids that come twice, by 128-bit hashes, in bounded memory: the hashes lie in a file
// and are compared a share at a time. One thread.
class CustomIds {
 public:
  struct Twin {
    std::uint64_t line = 0;   // The later one,
    std::uint64_t first = 0;  // and the one before it that has the same.
    bool operator==(const Twin&) const = default;
  };
  static constexpr std::size_t kShare = 1U << 20;  // Of 24 bytes each.

  // Makes a nameless file in `folder`. Throws FatalError.
  explicit CustomIds(const std::filesystem::path& folder, std::size_t share = kShare);
  void add(std::string_view custom_id, std::uint64_t line);
  // At most `limit`, by line.
  std::vector<Twin> twins(std::size_t limit);

 private:
  struct Entry {
    std::array<std::uint64_t, 2> hash{};
    std::uint64_t line = 0;
    auto operator<=>(const Entry&) const = default;
  };
  void flush();
  void compare_share(std::uint64_t share, std::uint64_t shares, std::vector<Twin>& twins) const;

  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::size_t share_;
  std::unique_ptr<std::FILE, Closer> file_;
  std::vector<Entry> waiting_;  // Not in the file yet.
  std::uint64_t count_ = 0;
};

}  // namespace tessera::gateway
