#include "common/model/identity/file_hash.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

std::string content(std::size_t bytes) {
  std::string text(bytes, '\0');
  std::uint32_t state = 1;
  for (char& c : text) {
    state = state * 1664525 + 1013904223;
    c = static_cast<char>(state >> 24);
  }
  return text;
}

// As the header says it, in one piece and on one thread.
Digest expected(const std::string& text) {
  const auto number = [](std::uint64_t value) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &value, 8);
    return bytes;
  };
  const std::string tag = "tessera file tree 1";
  std::string root = number(tag.size()) + tag + number(kHashLeafBytes) + number(text.size());
  for (std::size_t at = 0; at < text.size(); at += kHashLeafBytes) {
    const std::string leaf = text.substr(at, kHashLeafBytes);
    const Digest digest = blake2b(std::as_bytes(std::span(leaf)));
    root.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  }
  return blake2b(std::as_bytes(std::span(root)));
}

TEST(FileHash, IsTheTreesOnAnyNumberOfThreads) {
  const ScratchFolder folder;
  std::vector<StampedFile> files;
  std::vector<Digest> right;
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, kHashLeafBytes - 1,
                                  kHashLeafBytes, kHashLeafBytes + 1, 3 * kHashLeafBytes + 5}) {
    const std::string text = content(bytes);
    const std::string name = std::to_string(bytes);
    folder.write(name, text);
    files.push_back({.path = folder.path() / name, .stamp = *stamp_of(folder.path() / name)});
    right.push_back(expected(text));
  }
  for (const int threads : {0, 1, 2, 3, 16}) {
    const auto hashes = hash_files(files, threads);
    ASSERT_TRUE(hashes.ok()) << hashes.error().message;
    EXPECT_EQ(*hashes, right) << threads;
  }
  EXPECT_TRUE(hash_files({}, 2)->empty());
}

TEST(FileHash, RefusesWhatIsNoFile) {
  const ScratchFolder folder;
  EXPECT_FALSE(stamp_of(folder.path()).ok());
  EXPECT_FALSE(stamp_of(folder.path() / "absent").ok());
  EXPECT_FALSE(stamp_of(std::filesystem::path("/dev/zero")).ok());
  const StampedFile gone{.path = folder.path() / "absent", .stamp = {.size = 7}};
  EXPECT_EQ(hash_files(std::span(&gone, 1), 1).error().code, ErrorCode::kConflict);
}

TEST(FileHash, ClocksOfFilesAreCoarse) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  const std::int64_t now = 1000 * kSecond;
  struct Case {
    std::int64_t modified, changed;
    bool just_now;
  };
  for (const Case& c :
       {Case{now - 3 * kSecond, now - 3 * kSecond, false},
        Case{now - kSecond, now - 9 * kSecond, true}, Case{now - 9 * kSecond, now - kSecond, true},
        Case{now + kSecond, now - 9 * kSecond, true},
        Case{now + 900 * kSecond, now - 9 * kSecond, false}}) {
    EXPECT_EQ(written_just_now({.modified_ns = c.modified, .changed_ns = c.changed}, now),
              c.just_now);
  }
}

}  // namespace
}  // namespace tessera
