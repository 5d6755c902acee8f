#include "common/model/fingerprint.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "common/os/data_dir.hpp"
#include "tests/common/model/demo_folder.hpp"
#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDataBytes = 400'000;
constexpr const char* kConfig = R"({"rope_theta": 1000000.0})";

ModelFolder plain_folder(const fs::path& dir) {
  ModelFolder folder;
  folder.dir = folder.modules.transformer_dir = dir;
  folder.config.rope_theta = 1e6;
  return folder;
}

std::string with_header(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(file.data(), &size, 8);
  return file + header + data;
}

std::string weights_file(std::size_t data_bytes) {
  return with_header(R"({"a":{"dtype":"U8","shape":[)" + std::to_string(data_bytes) +
                         R"(],"data_offsets":[0,)" + std::to_string(data_bytes) + "]}}",
                     std::string(data_bytes, 'd'));
}

std::string dense_file(float value) {
  std::string data;
  for (int i = 0; i < 64 * 256; ++i) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return with_header(
      R"({"linear.weight":{"dtype":"F32","shape":[64,256],"data_offsets":[0,65536]}})", data);
}

ModelHash hash_of(const fs::path& dir) {
  const ModelFolder folder = read_model_folder(dir).value();
  const auto weights = open_weights(folder);
  EXPECT_TRUE(weights.ok()) << weights.error().message;
  return ModelHash::of(folder, *weights).value();
}

// As if the files had been written long ago.
std::int64_t later() { return now_ns() + 60'000'000'000; }

// A folder with config, tokenizer and one file of weights, whose remembered hashes lie in it or in
// a cache folder of its own.
class FingerprintTest : public testing::Test {
 protected:
  FingerprintTest() {
    folder.write("m/config.json", kConfig);
    folder.write("m/tokenizer.json", "t");
    folder.write("m/model.safetensors", weights_file(kDataBytes));
  }

  Result<ModelHash> hash(bool rehash = false, std::int64_t (*clock)() = later) const {
    const auto weights = SafetensorsFolder::open(dir);
    EXPECT_TRUE(weights.ok()) << weights.error().message;
    return ModelHash::of(plain_folder(dir), *weights,
                         {.threads = 2, .rehash = rehash, .cache_folder = cache, .clock = clock});
  }
  std::string fingerprint() const { return hash().value().fingerprint("bfloat16"); }
  bool reads_all() const { return hash().value().work().bytes_read > 0; }

  // One byte from the end of the weights, changed in place.
  void flip(std::size_t from_end, const fs::path& file = "m/model.safetensors") const {
    std::fstream stream(folder.path() / file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-static_cast<std::streamoff>(from_end), std::ios::end);
    const int byte = stream.get();
    stream.seekp(-static_cast<std::streamoff>(from_end), std::ios::end);
    stream.put(static_cast<char>(byte ^ 1));
  }

  const ScratchFolder folder;
  const fs::path dir = folder.path() / "m";
  const fs::path cache = folder.path() / "cache";
  const fs::path beside = dir / ".tessera-fingerprint.json";
};

TEST_F(FingerprintTest, TellsConfigTokenizerNameAndTypeApart) {
  std::set<std::string> all = {fingerprint(), hash()->fingerprint("float32")};
  folder.write("m/config.json", std::string(kConfig) + "\n");
  all.insert(fingerprint());
  folder.write("m/config.json", kConfig);
  folder.write("m/tokenizer.json", "t2");
  all.insert(fingerprint());
  folder.write("m/tokenizer.json", "t");
  EXPECT_EQ(all.size(), 4U);
  EXPECT_TRUE(all.contains(fingerprint()));
  for (const std::string& one : all) {
    EXPECT_EQ(one.size(), 64U);
  }
}

// A retrained row of a table is a few bytes anywhere.
TEST_F(FingerprintTest, EveryByteCounts) {
  const std::string before = fingerprint(), former = hash()->former_fingerprint("bfloat16");
  std::set<std::string> all = {before};
  std::size_t unseen = 0;
  for (std::size_t from_end = 1; from_end <= kDataBytes; from_end += 3989) {
    flip(from_end);
    all.insert(fingerprint());
    unseen += hash()->former_fingerprint("bfloat16") == former ? 1 : 0;
    flip(from_end);
  }
  EXPECT_EQ(all.size(), 1 + (kDataBytes + 3988) / 3989);
  EXPECT_GT(unseen, 50U);  // Samples miss most of them, and must go on doing so.
  EXPECT_EQ(fingerprint(), before);
}

TEST(Fingerprint, FormerVersionsCallTheDemoModelThis) {
  const ModelHash hash = hash_of(data_dir() / "demo-model");
  EXPECT_EQ(hash.former_fingerprint("bfloat16"),
            "8bd842b83d0f2983be303d11993c4947f7d9c58db5de3731d285fa642ee51056");
  EXPECT_EQ(hash.former_fingerprint("float32"),
            "3b876e3b5d052127459f27fa9f18ff2abee557290717b24c2c2bfa667e70e465");
  EXPECT_EQ(hash.former_fingerprint("int8"), "");
  EXPECT_NE(hash.fingerprint("bfloat16"), hash.former_fingerprint("bfloat16"));
}

TEST(Fingerprint, SettingsThatChangeVectorsCount) {
  const auto dense = [](const DemoFolder& folder, float value) {
    folder.edit("modules.json", [](nlohmann::json& list) {
      list.push_back({{"idx", 3},
                      {"name", "3"},
                      {"path", "2_Dense"},
                      {"type", "sentence_transformers.models.Dense"}});
    });
    folder.write("2_Dense/config.json", R"({"in_features": 256, "out_features": 64, "bias": false,
        "activation_function": "torch.nn.modules.linear.Identity"})");
    folder.write("2_Dense/model.safetensors", dense_file(value));
  };
  const std::pair<const char*, std::function<void(const DemoFolder&)>> cases[] = {
      {"as shipped", [](const DemoFolder&) {}},
      {"a Dense module", [&](const DemoFolder& f) { dense(f, 0.01F); }},
      {"with other weights", [&](const DemoFolder& f) { dense(f, 0.02F); }},
      {"theta as transformers has it where none is said",
       [](const DemoFolder& f) {
         f.edit("config.json", [](nlohmann::json& c) { c.erase("rope_theta"); });
       }},
  };
  std::set<std::string> all;
  for (const auto& [what, change] : cases) {
    const DemoFolder demo;
    change(demo);
    const ModelHash hash = hash_of(demo.path());
    all.insert(hash.fingerprint("bfloat16"));
    // Versions before embedded with the last three as if nothing were there.
    EXPECT_EQ(hash.former_fingerprint("bfloat16").empty(), what != cases[0].first) << what;
  }
  EXPECT_EQ(all.size(), std::size(cases));
}

TEST_F(FingerprintTest, IsRememberedBesideTheModel) {
  const auto first = hash().value();
  EXPECT_EQ(first.work().bytes_read, fs::file_size(dir / "model.safetensors"));
  EXPECT_EQ(first.work().remembered_in, beside);
  const auto second = hash().value();
  EXPECT_EQ(second.work().bytes_read, 0U);
  EXPECT_EQ(second.work().remembered_in, "");
  for (const char* type : {"bfloat16", "float32"}) {
    EXPECT_EQ(second.fingerprint(type), first.fingerprint(type));
    EXPECT_EQ(second.former_fingerprint(type), first.former_fingerprint(type));
  }
  EXPECT_FALSE(fs::exists(cache));
}

TEST_F(FingerprintTest, AnyTraceOfAChangeIsReadAgain) {
  const fs::path file = dir / "model.safetensors";
  struct stat status {};
  const std::pair<const char*, std::function<void()>> cases[] = {
      {"touched", [&] { fs::last_write_time(file, fs::file_time_type::clock::now()); }},
      {"written in place, its time set back",
       [&] {
         ::stat(file.c_str(), &status);
         flip(200'000);
         const timespec times[2] = {status.st_atim, status.st_mtim};
         ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
       }},
      {"replaced, with the same size and time",
       [&] {
         ::stat(file.c_str(), &status);
         folder.write("m/fresh", weights_file(kDataBytes));
         const timespec times[2] = {status.st_atim, status.st_mtim};
         ASSERT_EQ(::utimensat(AT_FDCWD, (dir / "fresh").c_str(), times, 0), 0);
         fs::rename(dir / "fresh", file);
       }},
      {"longer", [&] { folder.write("m/model.safetensors", weights_file(kDataBytes + 1)); }},
  };
  for (const auto& [what, change] : cases) {
    fingerprint();
    EXPECT_FALSE(reads_all()) << what;
    change();
    EXPECT_TRUE(reads_all()) << what;
  }
}

TEST_F(FingerprintTest, WhatWasWrittenJustNowIsNotTrusted) {
  const auto first = hash(false, now_ns).value();
  EXPECT_EQ(first.work().remembered_in, "");
  EXPECT_FALSE(fs::exists(beside));
  EXPECT_GT(hash(false, now_ns)->work().bytes_read, 0U);
}

TEST_F(FingerprintTest, RehashReadsAndSaysWhatWasWrong) {
  const std::string right = fingerprint();
  EXPECT_TRUE(hash(true)->work().wrong.empty());
  // A hash of other bytes, under the file's stamp: as after a fault of the disk.
  RememberedHashes made_up;
  made_up.files.push_back({.name = "model.safetensors",
                           .stamp = stamp_of(dir / "model.safetensors").value(),
                           .hash = blake2b({})});
  folder.write("m/.tessera-fingerprint.json", to_json(made_up));
  EXPECT_NE(fingerprint(), right);
  const auto again = hash(true).value();
  EXPECT_EQ(again.fingerprint("bfloat16"), right);
  EXPECT_EQ(again.work().wrong, std::vector<std::string>{"model.safetensors"});
  EXPECT_EQ(fingerprint(), right);
}

TEST_F(FingerprintTest, AFolderThatCannotBeWrittenIsRememberedInTheCacheFolder) {
  fs::create_directory(beside);  // Root may write everywhere, but not over this.
  const auto first = hash().value();
  EXPECT_EQ(first.work().remembered_in.parent_path(), cache / "fingerprints");
  EXPECT_EQ(hash()->work().bytes_read, 0U);
  // Another folder with the same names does not find it.
  fs::create_directory(folder.path() / "other");
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    fs::copy(dir / name, folder.path() / "other" / name);
  }
  const auto weights = SafetensorsFolder::open(folder.path() / "other");
  const auto other = ModelHash::of(plain_folder(folder.path() / "other"), *weights,
                                   {.cache_folder = cache, .clock = later});
  EXPECT_GT(other->work().bytes_read, 0U);
  EXPECT_EQ(other->fingerprint("float32"), first.fingerprint("float32"));
}

TEST_F(FingerprintTest, WithNowhereToRememberItReadsEachTime) {
  fs::create_directory(beside);
  folder.write("cache", "a file where the folder should be");
  EXPECT_EQ(hash()->work().remembered_in, "");
  EXPECT_TRUE(reads_all());
}

// A hub cache: links to blobs that are named by their hash.
TEST_F(FingerprintTest, LinksAreFollowedToTheFileThatCounts) {
  fs::create_directory(folder.path() / "blobs");
  fs::rename(dir / "model.safetensors", folder.path() / "blobs/1");
  fs::create_symlink("../blobs/1", dir / "model.safetensors");
  const std::string before = fingerprint();
  EXPECT_FALSE(reads_all());
  flip(77, "blobs/1");
  EXPECT_NE(fingerprint(), before);
  EXPECT_FALSE(reads_all());
  folder.write("blobs/2", weights_file(kDataBytes));
  fs::remove(dir / "model.safetensors");
  fs::create_symlink("../blobs/2", dir / "model.safetensors");
  EXPECT_TRUE(reads_all());
  EXPECT_EQ(fingerprint(), before);
}

TEST_F(FingerprintTest, AFileThatIsChangedMeanwhileIsRefused) {
  const std::pair<const char*, std::function<void()>> cases[] = {
      {"written", [&] { flip(9); }},
      {"cut", [&] { fs::resize_file(dir / "model.safetensors", 50'000); }},
      {"replaced",
       [&] {
         folder.write("m/fresh", weights_file(kDataBytes));
         fs::rename(dir / "fresh", dir / "model.safetensors");
       }},
      {"gone", [&] { fs::remove(dir / "model.safetensors"); }},
  };
  for (const auto& [what, change] : cases) {
    folder.write("m/model.safetensors", weights_file(kDataBytes));
    const auto weights = SafetensorsFolder::open(dir);
    EXPECT_TRUE(weights->check_unchanged().ok());
    change();
    const auto hashed =
        ModelHash::of(plain_folder(dir), *weights, {.cache_folder = cache, .clock = later});
    ASSERT_FALSE(hashed.ok()) << what;
    EXPECT_EQ(hashed.error().code, ErrorCode::kConflict) << what;
    EXPECT_NE(hashed.error().message.find("model.safetensors was changed"), std::string::npos);
    EXPECT_FALSE(weights->check_unchanged().ok()) << what;
  }
}

TEST_F(FingerprintTest, ManyAtOnceAgree) {
  const std::string right = fingerprint();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 10; ++n) {
        EXPECT_EQ(hash(i % 2 == 0)->fingerprint("bfloat16"), right);
      }
    });
  }
  threads.clear();
  EXPECT_FALSE(reads_all());
  const auto left = std::ranges::distance(fs::directory_iterator(dir), fs::directory_iterator());
  EXPECT_EQ(left, 4);  // No file of somebody half done.
}

TEST_F(FingerprintTest, CanBeStopped) {
  const auto weights = SafetensorsFolder::open(dir);
  std::stop_source stop;
  stop.request_stop();
  const auto hashed =
      ModelHash::of(plain_folder(dir), *weights, {.cache_folder = cache, .stop = stop.get_token()});
  ASSERT_FALSE(hashed.ok());
  EXPECT_EQ(hashed.error().code, ErrorCode::kCancelled);
}

TEST(Digest, IsBlake2b256InHexadecimal) {
  // The empty input's BLAKE2b-256, RFC 7693 parameters.
  const std::string empty = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8";
  EXPECT_EQ(to_hex(blake2b({})), empty);
  EXPECT_EQ(from_hex(empty), blake2b({}));
  for (const char wrong : {'G', 'A', ' ', '\0'}) {
    std::string text = empty;
    text[63] = wrong;
    EXPECT_FALSE(from_hex(text)) << text;
  }
  EXPECT_FALSE(from_hex(empty.substr(1)));
  EXPECT_FALSE(from_hex(empty + empty));
  EXPECT_FALSE(from_hex(""));
}

}  // namespace
}  // namespace tessera
