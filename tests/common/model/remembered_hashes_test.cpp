#include "common/model/identity/remembered_hashes.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

RememberedHashes sample() {
  RememberedHashes hashes;
  hashes.files.push_back({.name = "model-00001-of-00002.safetensors",
                          .stamp = {.size = std::numeric_limits<std::uint64_t>::max(),
                                    .inode = 7,
                                    .modified_ns = -1,
                                    .changed_ns = 1'700'000'000'123'456'789},
                          .hash = blake2b({})});
  hashes.files.push_back({.name = "m\xC3\xA9", .stamp = {.size = 3}, .hash = Digest{}});
  hashes.former.emplace(std::string(64, 'a'), std::string(64, 'b'));
  return hashes;
}

bool equal(const RememberedHashes& a, const RememberedHashes& b) {
  return to_json(a) == to_json(b);
}
bool is_empty(const RememberedHashes& hashes) { return equal(hashes, {}); }

TEST(RememberedHashes, SurviveAsText) {
  const RememberedHashes read = parse_remembered_hashes(to_json(sample()));
  EXPECT_TRUE(equal(read, sample()));
  ASSERT_EQ(read.files.size(), 2U);
  const auto& file = read.files[0];
  ASSERT_NE(read.find(file.name, file.stamp), nullptr);
  EXPECT_EQ(*read.find(file.name, file.stamp), blake2b({}));
  FileStamp other = file.stamp;
  ++other.modified_ns;
  EXPECT_EQ(read.find(file.name, other), nullptr);
  EXPECT_EQ(read.find("model.safetensors", file.stamp), nullptr);
}

// Damage is noticed wherever it is: what is taken is all or nothing.
TEST(RememberedHashes, AFlippedBitIsNotBelieved) {
  const std::string text = to_json(sample());
  std::size_t refused = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      const RememberedHashes read = parse_remembered_hashes(damaged);
      EXPECT_TRUE(is_empty(read) || equal(read, sample())) << at << " " << damaged.substr(at, 20);
      refused += is_empty(read) ? 1 : 0;
    }
  }
  EXPECT_GT(refused, 6 * text.size());
  for (std::size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_TRUE(is_empty(parse_remembered_hashes(text.substr(0, size)))) << size;
  }
}

TEST(RememberedHashes, MadeUpOnesAreNotBelieved) {
  using nlohmann::json;
  const json good = json::parse(to_json(sample()));
  std::vector<std::string> texts = {"",
                                    "null",
                                    "[]",
                                    "{}",
                                    "7",
                                    "{\"format\":1}",
                                    std::string(2 << 20, ' '),
                                    std::string(500'000, '['),
                                    std::string("\0\xFF", 2)};
  const auto changed = [&](const char* pointer, const json& value) {
    json object = good;
    object[json::json_pointer(pointer)] = value;
    texts.push_back(object.dump());
  };
  changed("/format", 2);
  changed("/format", "1");
  changed("/files", json::object());
  changed("/files", json::array({7}));
  changed("/files", json(std::vector<json>(2000, good["files"][0])));
  changed("/files/0/size", -1);
  changed("/files/0/size", 1.5);
  changed("/files/0/size", "3");
  changed("/files/0/inode", nullptr);
  changed("/files/0/hash", "00");
  changed("/files/0/hash", std::string(64, 'f'));
  changed("/files/0/name", 7);
  changed("/files/0/name", "another");
  changed("/former", json::array());
  changed("/former", {{"x", std::string(64, 'b')}});
  changed("/former", {{std::string(64, 'a'), std::string(64, 'c')}});
  changed("/former", {{std::string(64, 'a'), 7}});
  changed("/check", nullptr);
  for (const std::string& text : texts) {
    EXPECT_TRUE(is_empty(parse_remembered_hashes(text))) << text.substr(0, 200);
  }
}

TEST(HashMemory, TakesOnlyAPlainFileForItsOwn) {
  const ScratchFolder folder;
  const HashMemory memory(folder.path(), {});
  const fs::path file = folder.path() / ".tessera-fingerprint.json";
  EXPECT_TRUE(is_empty(memory.load()));
  EXPECT_EQ(memory.save(sample()), file);
  EXPECT_TRUE(equal(memory.load(), sample()));

  fs::rename(file, folder.path() / "elsewhere");
  fs::create_symlink("elsewhere", file);
  EXPECT_TRUE(is_empty(memory.load()));
  EXPECT_EQ(memory.save(sample()), "");
  EXPECT_TRUE(fs::is_symlink(file));
  fs::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  EXPECT_TRUE(is_empty(memory.load()));  // and does not wait for a writer
  EXPECT_EQ(memory.save(sample()), "");
  fs::remove(file);
  if (::geteuid() == 0) {  // Who may put files into the folder is not who may speak for its owner.
    memory.save(sample());
    ASSERT_EQ(::chown(file.c_str(), 12345, 12345), 0);
    EXPECT_TRUE(is_empty(memory.load()));
    EXPECT_EQ(memory.save(sample()), "");
    ASSERT_EQ(::chown(folder.path().c_str(), 12345, 12345), 0);
    EXPECT_TRUE(equal(memory.load(), sample()));
  }
}

TEST(HashMemory, TheCacheFolderIsTheUsers) {
  struct Case {
    const char *cache, *home;
    std::string folder;
  };
  const std::string old_home = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  for (const Case& c : {Case{"/c", "/h", "/c/tessera"}, Case{"", "/h", "/h/.cache/tessera"},
                        Case{"relative", "/h", "/h/.cache/tessera"}, Case{"", "", ""}}) {
    ::setenv("XDG_CACHE_HOME", c.cache, 1);
    ::setenv("HOME", c.home, 1);
    EXPECT_EQ(user_cache_folder(), c.folder);
  }
  ::setenv("HOME", old_home.c_str(), 1);
  ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace tessera
