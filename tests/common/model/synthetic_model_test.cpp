#include "common/model/synthetic_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "common/check.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/memory_estimate.hpp"
#include "common/model/settings/small_file.hpp"
#include "common/os/data_dir.hpp"
#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

Result<ModelConfig> demo_config() {
  return parse_model_config(
      read_small_file(data_dir() / "demo-model/config.json", 1 << 20).value());
}

std::string fingerprint_of(const std::filesystem::path& dir) {
  const auto folder = read_model_folder(dir);
  EXPECT_TRUE(folder.ok()) << folder.error().message;
  const auto weights = open_weights(*folder);
  EXPECT_TRUE(weights.ok()) << weights.error().message;
  return ModelHash::of(*folder, *weights).value().fingerprint("bfloat16");
}

TEST(MakeModel, WritesACompleteFolderTheSameForOneSeed) {
  const ScratchFolder a, b, c;
  make_model(a.path() / "m", "tiny", 5);
  make_model(b.path() / "m", "tiny", 5);
  make_model(c.path() / "m", "tiny", 6);
  for (const char* name : {"config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json",
                           "model.safetensors", "config_sentence_transformers.json"}) {
    EXPECT_TRUE(std::filesystem::exists(a.path() / "m" / name)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(a.path() / "m" / "golden.json"));
  EXPECT_EQ(fingerprint_of(a.path() / "m"), fingerprint_of(b.path() / "m"));
  EXPECT_NE(fingerprint_of(a.path() / "m"), fingerprint_of(c.path() / "m"));
}

TEST(MakeModel, RefusesAnotherShapeAndAFolderInUse) {
  const ScratchFolder folder;
  EXPECT_THROW(make_model(folder.path() / "m", "huge", 1), FatalError);
  folder.write("config.json", "{}");
  EXPECT_THROW(make_model(folder.path(), "tiny", 1), FatalError);
  EXPECT_THROW(make_model("/proc/no/such/place", "tiny", 1), FatalError);
}

TEST(SyntheticWeights, HaveTheStatedMeanAndDeviation) {
  const ScratchFolder folder;
  const auto config = demo_config();
  write_synthetic_weights(folder.path(), *config, {.seed = 3, .type = TensorType::kFloat32});
  const auto weights = SafetensorsFolder::open(folder.path());
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  const auto moments = [&](const char* name) {
    const auto bytes = weights->find(name)->bytes;
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    double sum = 0, squares = 0;
    for (const float v : values) {
      sum += v;
      squares += double{v} * v;
    }
    const auto n = static_cast<double>(values.size());
    return std::pair(sum / n, std::sqrt(squares / n - sum / n * sum / n));
  };
  const auto [table_mean, table_deviation] = moments("embed_tokens.weight");
  EXPECT_NEAR(table_mean, 0, 0.01);
  EXPECT_NEAR(table_deviation, 1, 0.01);
  const auto [down_mean, down_deviation] = moments("layers.3.mlp.down_proj.weight");
  EXPECT_NEAR(down_mean, 0, 0.001);
  EXPECT_NEAR(down_deviation, 1 / std::sqrt(768.0), 0.001);
  const auto [norm_mean, norm_deviation] = moments("norm.weight");
  EXPECT_NEAR(norm_mean, 1, 0.05);
  EXPECT_NEAR(norm_deviation, 0.1, 0.03);
}

TEST(SyntheticWeights, ShardsHoldTheSameTensors) {
  const ScratchFolder whole, cut;
  const auto config = demo_config();
  write_synthetic_weights(whole.path(), *config, {.seed = 3});
  write_synthetic_weights(cut.path(), *config, {.seed = 3, .shard_bytes_max = 1'000'000});
  const auto a = SafetensorsFolder::open(whole.path());
  const auto b = SafetensorsFolder::open(cut.path());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->files().size(), 1U);
  EXPECT_GT(b->files().size(), 3U);
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  for (const auto& [name, tensor] : a->tensors()) {
    const TensorView* other = b->find(name);
    ASSERT_NE(other, nullptr) << name;
    EXPECT_TRUE(std::ranges::equal(tensor.bytes, other->bytes)) << name;
  }
}

TEST(MemoryEstimate, CountsEveryParameterOnceOnOneDevice) {
  const auto config = parse_model_config(
      read_small_file(data_dir() / "Qwen3-Embedding-8B/config.json", 1 << 20).value());
  ASSERT_TRUE(config.ok());
  const auto items = estimate_memory(*config, {.max_batch_tokens = 256, .max_sequences = 256});
  const std::uint64_t matrices = items[0].bytes + items[1].bytes, norms = items[2].bytes;
  EXPECT_EQ(matrices / 2 + norms / 4, static_cast<std::uint64_t>(config->parameters()));
  // 7.57 billion parameters in 16 bits.
  EXPECT_NEAR(static_cast<double>(matrices) / 1e9, 15.1, 0.1);
  const auto half =
      estimate_memory(*config, {.max_batch_tokens = 256, .max_sequences = 256, .ranks = 2});
  EXPECT_EQ(half[0].bytes * 2, items[0].bytes);
  EXPECT_EQ(half[1].bytes, items[1].bytes);
}

}  // namespace
}  // namespace tessera
