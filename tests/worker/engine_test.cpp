// The demo model against the vectors that transformers gave for it, and the engine's contract.

#include "worker/engine/engine.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/worker/embed_helpers.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using kernels::DType;
constexpr const char* kDemo = "deploy/data/demo-model";

std::unique_ptr<Engine> demo_engine(DType type, int threads, std::int64_t max_seqlen = 512) {
  return create_engine({.model_dir = kDemo,
                        .threads = threads,
                        .max_batch_tokens = 4096,
                        .max_seqlen = max_seqlen,
                        .weight_type = type,
                        .measure_cost = false});
}

struct Golden {
  std::vector<Ids> ids;
  std::vector<std::vector<float>> vectors;
};

Golden read_golden() {
  std::ifstream file(std::string(kDemo) + "/golden.json");
  Golden golden;
  for (const auto& item : nlohmann::json::parse(file)) {
    golden.ids.push_back(item.at("ids").get<Ids>());
    golden.vectors.push_back(item.at("vec").get<std::vector<float>>());
  }
  return golden;
}

std::vector<Ids> mixed_lengths() {
  std::vector<Ids> sequences;
  std::int32_t id = 1;
  for (const int len : {1, 2, 17, 128, 511, 64, 65, 3, 200}) {
    Ids sequence;
    for (int i = 0; i < len; ++i) {
      id = (id * 7919 + 13) % 16000;
      sequence.push_back(id);
    }
    sequences.push_back(sequence);
  }
  return sequences;
}

struct Numbers {
  DType type;
  double cosine_min;
  double error_max;
};

class GoldenVectors : public testing::TestWithParam<Numbers> {};

TEST_P(GoldenVectors, AreReached) {
  const Golden golden = read_golden();
  ASSERT_EQ(golden.ids.size(), 13U);
  const auto engine = demo_engine(GetParam().type, 2);
  const auto vectors = embed(*engine, golden.ids);
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    EXPECT_GE(cosine(vectors[i], golden.vectors[i]), GetParam().cosine_min) << i;
    EXPECT_LE(largest_difference(vectors[i], golden.vectors[i]), GetParam().error_max) << i;
  }
}

// The golden file keeps seven decimals.
INSTANTIATE_TEST_SUITE_P(Types, GoldenVectors,
                         testing::Values(Numbers{DType::kFloat32, 0.999999, 2e-6},
                                         Numbers{DType::kBFloat16, 0.9999, 2e-3}));

TEST(Engine, AloneEqualsAnyBatchInFloat32) {
  const auto sequences = mixed_lengths();
  const auto one = demo_engine(DType::kFloat32, 1);
  for (const int threads : {1, 2, 3}) {
    const auto engine = demo_engine(DType::kFloat32, threads);
    const auto together = embed(*engine, sequences);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const auto alone = embed(*one, {sequences[i]});
      EXPECT_EQ(alone[0], together[i]) << i << ", " << threads;
    }
  }
}

TEST(Engine, TheSameBatchTwiceIsBitIdentical) {
  const auto engine = demo_engine(DType::kBFloat16, 2);
  EXPECT_EQ(embed(*engine, mixed_lengths()), embed(*engine, mixed_lengths()));
}

TEST(Engine, TwoBatchesInFlightKeepApart) {
  const auto engine = demo_engine(DType::kBFloat16, 2);
  const auto all = mixed_lengths();
  std::vector<std::vector<float>> expected;
  for (const Ids& sequence : all) {
    expected.push_back(embed(*engine, {sequence})[0]);
  }
  for (std::size_t i = 0; i < 40; ++i) {
    const int slot = static_cast<int>(i % 2);
    if (i >= 2) {
      engine->wait(slot);
      const auto got = engine->vectors(slot);
      const auto& want = expected[(i - 2) % all.size()];
      EXPECT_LE(largest_difference({got.begin(), got.end()}, want), 1e-6) << i;
    }
    engine->enqueue(slot, pack({all[i % all.size()]}).view());
  }
  engine->wait(0);
  engine->wait(1);
}

TEST(Engine, AnExpressBatchOvertakesAndNoBitChanges) {
  for (const int threads : {1, 2}) {
    const auto engine = create_engine({.model_dir = kDemo,
                                       .threads = threads,
                                       .max_batch_tokens = 4096,
                                       .measure_cost = false,
                                       .piece_s = 1});
    EXPECT_EQ(engine->info().express_tokens, 1024);
    expect_same_bits_overtaken(*engine, mixed_lengths(), {Ids(17, 5), Ids(300, 6), {7}});
  }
}

TEST(Engine, RefusesBatchesThatCannotRun) {
  const auto engine = demo_engine(DType::kFloat32, 1, 64);
  const auto code = [&](const Ids& ids, const Ids& cu_seqlens) {
    return engine->check({.input_ids = ids, .cu_seqlens = cu_seqlens}).error().code;
  };
  EXPECT_TRUE(engine->check(pack({{1, 2}}).view()).ok());
  EXPECT_EQ(code({1, 16003}, {0, 2}), ErrorCode::kInvalidTokenId);
  EXPECT_EQ(code({1, -1}, {0, 2}), ErrorCode::kInvalidTokenId);
  EXPECT_EQ(code({1, 2}, {0, 2, 2}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, {0, 1}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, {0}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({}, {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, {0, 3, 2}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(Ids(65, 1), {0, 65}), ErrorCode::kTooLong);
  EXPECT_EQ(code(Ids(4097, 1), {0, 64}), ErrorCode::kInvalidArgument);
}

TEST(Engine, RefusesToStart) {
  const auto refusal = [](const EngineOptions& options) -> std::string {
    try {
      (void)create_engine(options);
    } catch (const FatalError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal({.model_dir = "/nonexistent"}).find("no such folder"), std::string::npos);
  EXPECT_NE(refusal({.model_dir = kDemo, .device = "tpu"}).find("tpu"), std::string::npos);
  EXPECT_NE(refusal({.model_dir = kDemo, .max_seqlen = 8193}).find("max-seqlen"),
            std::string::npos);
  EXPECT_NE(refusal({.model_dir = kDemo, .max_batch_tokens = 1 << 24, .max_sequences = 65536})
                .find("in all"),
            std::string::npos);
}

TEST(Engine, SaysWhatItServes) {
  const auto engine = demo_engine(DType::kFloat32, 2);
  const EngineInfo& info = engine->info();
  EXPECT_EQ(info.model_name, "demo-model");
  EXPECT_EQ(info.fingerprint.size(), 64U);
  EXPECT_EQ(info.tokenizer_hash.size(), 64U);
  EXPECT_EQ(info.hidden_size, 256);
  EXPECT_EQ(info.vocab_size, 16003);
  EXPECT_EQ(info.max_seqlen, 512);
  EXPECT_EQ(info.max_batch_tokens, 4096);
  EXPECT_EQ(engine->slots(), 2);
}

}  // namespace
}  // namespace tessera::worker
