// A text has the same bits alone, in any batch, at any place in it and on any number of threads.
// ctest runs this program several times, with oneDNN held to the instruction sets of other
// processors by ONEDNN_MAX_CPU_ISA.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "common/os/data_dir.hpp"
#include "tests/worker/reference_case.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using kernels::DType;

// A tenth of a second of work on a slow core, and lengths at both sides of every step.
constexpr std::size_t kTokensMax = 700;

struct Case {
  const char* model;
  DType type;
};

std::string name_of(const Case& c) {
  return std::string(c.model) + (c.type == DType::kFloat32 ? "_float32" : "_bfloat16");
}

bool held_to_float32() {
  const char* isa = std::getenv("ONEDNN_MAX_CPU_ISA");
  return isa != nullptr && std::string_view(isa) == "AVX2";
}

class SameBits : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (held_to_float32() && GetParam().type != DType::kFloat32) {
      GTEST_SKIP() << "such processors compute in float32";
    }
    dir_ = data_dir() / "demo-model";
    if (std::string_view(GetParam().model) == "shape_of_0_6b") {
      dir_ = folder_.path();
      const ModelConfig config{.hidden_size = 1024,
                               .num_hidden_layers = 2,
                               .intermediate_size = 3072,
                               .num_attention_heads = 16,
                               .num_key_value_heads = 8,
                               .head_dim = 128,
                               .vocab_size = 1000,
                               .max_position_embeddings = 1024,
                               .rms_norm_eps = 1e-6,
                               .rope_theta = 1e6,
                               .tie_word_embeddings = true,
                               .torch_dtype = "bfloat16"};
      folder_.write("config.json", model_config_json(config));
      folder_.write("tokenizer.json", "{}");
      write_synthetic_weights(dir_, config, {.seed = 7});
    }
  }

  std::unique_ptr<Engine> engine(int threads) const {
    return create_engine({.model_dir = dir_,
                          .device = "cpu",
                          .threads = threads,
                          .max_batch_tokens = 1024,
                          .weight_type = GetParam().type,
                          .measure_cost = false});
  }

  // Texts of 1 to 320 tokens, most of them short.
  static std::vector<Ids> texts(std::mt19937& random) {
    std::vector<Ids> all;
    const std::size_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 129, 145, 320};
    for (std::size_t total = 0;;) {
      Ids ids(all.size() < 3 ? lengths[15 - all.size() * 6] : lengths[random() % 13]);
      total += ids.size();
      if (total > kTokensMax) {
        return all;
      }
      for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % 1000);
      all.push_back(std::move(ids));
    }
  }

  ScratchFolder folder_;
  std::filesystem::path dir_;
};

TEST_P(SameBits, AloneInAnyBatchAndOnAnyThreads) {
  std::mt19937 random(11);
  std::vector<Ids> all = texts(random);
  std::vector<std::vector<float>> alone;
  const auto one = engine(1);
  for (const Ids& ids : all) {
    alone.push_back(embed(*one, {ids})[0]);
  }
  for (const int threads : {1, 2, 3, 5}) {
    const auto other = threads == 1 ? nullptr : engine(threads);
    Engine& packed = threads == 1 ? *one : *other;
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    for (int mix = 0; mix < 3; ++mix) {
      std::ranges::shuffle(order, random);
      // All, half and a few of them.
      std::vector<Ids> some;
      for (std::size_t i = 0; i < std::max<std::size_t>(order.size() >> mix, 2); ++i) {
        some.push_back(all[order[i]]);
      }
      const auto together = embed(packed, some);
      for (std::size_t i = 0; i < some.size(); ++i) {
        EXPECT_EQ(together[i], alone[order[i]])
            << some[i].size() << " tokens, " << threads << " threads, mix " << mix;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SameBits,
                         testing::Values(Case{"demo", DType::kBFloat16},
                                         Case{"demo", DType::kFloat32},
                                         Case{"shape_of_0_6b", DType::kBFloat16},
                                         Case{"shape_of_0_6b", DType::kFloat32}),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace tessera::worker
