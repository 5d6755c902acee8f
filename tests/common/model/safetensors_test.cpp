#include "common/model/weights/safetensors.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "common/model/settings/model_config.hpp"
#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string file(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(file.data(), &size, 8);
  return file + header + std::string(data_bytes, 'd');
}

const std::string kTwo =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

TEST(Safetensors, ReadsEntries) {
  const auto entries = parse_safetensors_header(kTwo, 32);
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].type, TensorType::kFloat32);
  EXPECT_EQ((*entries)[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ((*entries)[1].begin, 24U);
}

TEST(Safetensors, RefusesHostileHeaders) {
  const std::pair<std::string, std::uint64_t> cases[] = {
      {kTwo, 31},  // truncated data
      {kTwo, 33},  // trailing bytes
      {"", 0},
      {"[]", 0},
      {std::string(100'000, '['), 0},
      {R"({"a":1})", 0},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4},
      {R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8},  // hole
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0},
      {R"({"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}})", 4},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"  // overlap
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12},
  };
  for (const auto& [header, bytes] : cases) {
    EXPECT_FALSE(parse_safetensors_header(header, bytes).ok()) << header.substr(0, 100);
  }
}

TEST(Safetensors, AnyFlippedByteIsReadOrRefused) {
  const ScratchFolder folder;
  const std::string file = file_of(kTwo, 32);
  for (std::size_t i = 0; i < file.size() - 32; ++i) {
    for (const int mask : {1, 2, 8, 32, 128}) {
      std::string flipped = file;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      folder.write("model.safetensors", flipped);
      const auto opened = SafetensorsFolder::open(folder.path());
      if (opened.ok()) {
        std::size_t total = 0;
        for (const auto& [name, tensor] : opened->tensors()) {
          total += tensor.bytes.size();
        }
        EXPECT_EQ(total, 32U);
      }
    }
  }
}

TEST(Safetensors, RefusesTruncatedFiles) {
  const ScratchFolder folder;
  const std::string file = file_of(kTwo, 32);
  for (std::size_t size = 0; size < file.size(); ++size) {
    folder.write("model.safetensors", file.substr(0, size));
    EXPECT_FALSE(SafetensorsFolder::open(folder.path()).ok()) << size;
  }
}

TEST(Safetensors, ReadsShardsThroughTheIndex) {
  const ScratchFolder folder;
  const auto one = [](const char* name) {
    return file_of(
        std::string(R"({")") + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  };
  folder.write("s1.safetensors", one("a"));
  folder.write("s2.safetensors", one("b"));
  const auto index = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    return SafetensorsFolder::open(folder.path());
  };
  const auto both = index(R"({"a":"s1.safetensors","b":"s2.safetensors"})");
  ASSERT_TRUE(both.ok()) << both.error().message;
  EXPECT_NE(both->find("a"), nullptr);
  EXPECT_NE(both->find("b"), nullptr);
  EXPECT_EQ(both->find("c"), nullptr);
  EXPECT_FALSE(index(R"({"a":"s1.safetensors","c":"s2.safetensors"})").ok());
  EXPECT_FALSE(index(R"({"a":"missing.safetensors"})").ok());
  EXPECT_FALSE(index(R"({"a":"../s1.safetensors"})").ok());
  EXPECT_FALSE(index(R"({"a":"/etc/passwd"})").ok());
  EXPECT_FALSE(index(R"({"a":7})").ok());
  EXPECT_FALSE(index("{}").ok());
  folder.write("s2.safetensors", one("a"));
  EXPECT_FALSE(index(R"({"a":"s1.safetensors","b":"s2.safetensors"})").ok());
}

TEST(Safetensors, OpensTheDemoModel) {
  const auto folder = SafetensorsFolder::open("deploy/data/demo-model");
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  EXPECT_EQ(folder->tensors().size(), 46U);
  const TensorView* table = folder->find("embed_tokens.weight");
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->shape, (std::vector<std::int64_t>{16003, 256}));
  EXPECT_EQ(table->bytes.size(), 16003U * 256 * 2);
}

}  // namespace
}  // namespace tessera
