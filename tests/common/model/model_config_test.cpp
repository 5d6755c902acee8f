#include "common/model/model_config.hpp"

#include <gtest/gtest.h>

#include "tests/common/model/scratch_folder.hpp"

namespace tessera {
namespace {

const std::filesystem::path kData = "deploy/data";

std::string demo_text() {
  return read_small_file(kData / "demo-model/config.json", 1 << 20).value();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ModelConfig, ReadsTheShippedFolders) {
  const auto demo = read_model_config(kData / "demo-model");
  ASSERT_TRUE(demo.ok());
  EXPECT_EQ(demo->hidden_size, 256);
  EXPECT_EQ(demo->q_width(), 512);
  EXPECT_EQ(demo->kv_width(), 256);
  EXPECT_EQ(demo->parameters(), 8'032'256);
  EXPECT_EQ(demo->rope_theta, 1e6);
  const auto eight = read_model_config(kData / "Qwen3-Embedding-8B");
  ASSERT_TRUE(eight.ok());
  EXPECT_EQ(eight->hidden_size, 4096);
  EXPECT_FALSE(eight->tie_word_embeddings);
}

TEST(ModelConfig, TakesRopeFromTheNewerNestedForm) {
  const auto config = parse_model_config(
      replaced(demo_text(), "\"rope_theta\": 1000000",
               R"("rope_parameters": {"rope_type": "default", "rope_theta": 5000})"));
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->rope_theta, 5000);
}

struct Refusal {
  std::string from, to, says;
};

TEST(ModelConfig, RefusesWhatItWouldComputeWrongly) {
  const Refusal refusals[] = {
      {"\"qwen3\"", "\"llama\"", "model_type"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"},
      {"\"use_sliding_window\": false", "\"use_sliding_window\": true", "use_sliding_window"},
      {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"yarn\"}", "rope_scaling"},
      {"\"silu\"", "\"gelu\"", "hidden_act"},
      {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "multiple"},
      {"\"hidden_size\": 256", "\"hidden_size\": 257", "multiple"},
      {"\"hidden_size\": 256", "\"hidden_size\": \"256\"", "whole number"},
      {"\"hidden_size\": 256", "\"hidden_size\": 2.5", "whole number"},
      {"\"hidden_size\": 256", "\"hidden_size\": 18446744073709551615", "not within"},
      {"\"hidden_size\": 256", "\"hidden_size\": -256", "not within"},
      {"\"vocab_size\": 16003", "\"vocab_size\": 0", "not within"},
      {"\"vocab_size\": 16003", "\"vocabulary\": 16003", "missing"},
      {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": -1", "out of range"},
      {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": null", "not a number"},
  };
  for (const Refusal& refusal : refusals) {
    const auto config = parse_model_config(replaced(demo_text(), refusal.from, refusal.to));
    ASSERT_FALSE(config.ok()) << refusal.to;
    EXPECT_NE(config.error().message.find(refusal.says), std::string::npos)
        << config.error().message;
  }
}

TEST(ModelConfig, AnyFlippedByteIsReadOrRefusedAndNeverWrong) {
  const std::string text = demo_text();
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const int mask : {1, 4, 16, 64, 128}) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ mask);
      const auto config = parse_model_config(flipped);
      if (config.ok()) {
        EXPECT_EQ(config->num_attention_heads % config->num_key_value_heads, 0);
        EXPECT_GE(config->hidden_size, 32);
      }
    }
  }
}

TEST(ModelConfig, RefusesTruncationNestingAndSize) {
  const std::string text = demo_text();
  for (std::size_t size = 0; size < text.size(); size += 7) {
    EXPECT_FALSE(parse_model_config(text.substr(0, size)).ok());
  }
  EXPECT_FALSE(parse_model_config(std::string(500'000, '[')).ok());
  EXPECT_FALSE(parse_model_config(std::string(kModelConfigBytesMax + 1, ' ')).ok());
  EXPECT_FALSE(parse_model_config("[]").ok());
}

TEST(ModelConfig, RefusesAnotherPoolingAndAMissingFolder) {
  const ScratchFolder folder;
  folder.write("config.json", demo_text());
  EXPECT_TRUE(read_model_config(folder.path()).ok());
  folder.write("1_Pooling/config.json", R"({"pooling_mode_mean_tokens": true})");
  EXPECT_FALSE(read_model_config(folder.path()).ok());
  EXPECT_EQ(read_model_config("/nonexistent").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace tessera
