// Models with random weights of several shapes against the vectors that transformers gave for them
// in float32 (tests/data/make_reference.py): types, batches, prefixes, shards, stray tensors.

#include <gtest/gtest.h>

#include <ostream>

#include "common/model/settings/small_file.hpp"
#include "tests/worker/reference_case.hpp"
#include "worker/create_engine.hpp"

namespace tessera::worker {
namespace {

using kernels::DType;

struct Case {
  const char* model;
  DType type;
  double cosine_min;
  double error_max;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.model << " " << kernels::to_string(c.type);
  }
};

class References : public testing::TestWithParam<Case> {};

TEST_P(References, AreReachedInOneMixedBatch) {
  const Case& c = GetParam();
  const Reference reference = read_reference(c.model);
  ASSERT_EQ(reference.ids.size(), 5U);
  const Served served(reference, c.type);
  const auto vectors = embed(*served.engine, reference.ids);
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    EXPECT_GE(cosine(vectors[i], reference.vectors[i]), c.cosine_min) << reference.ids[i].size();
    EXPECT_LE(largest_difference(vectors[i], reference.vectors[i]), c.error_max)
        << reference.ids[i].size();
  }
}

INSTANTIATE_TEST_SUITE_P(All, References,
                         testing::Values(Case{"narrow", DType::kFloat32, 0.999999, 1e-5},
                                         Case{"square", DType::kFloat32, 0.999999, 1e-5},
                                         Case{"wide", DType::kFloat32, 0.999999, 1e-5},
                                         Case{"narrow", DType::kBFloat16, 0.9999, 2e-3},
                                         Case{"square", DType::kBFloat16, 0.9999, 2e-3},
                                         Case{"wide", DType::kBFloat16, 0.9999, 2e-3}));

class Shapes : public testing::TestWithParam<const char*> {};

TEST_P(Shapes, AloneEqualsAnyBatchInFloat32) {
  const Reference reference = read_reference(GetParam());
  const Served one(reference, DType::kFloat32, 1);
  const Served three(reference, DType::kFloat32, 3);
  std::vector<Ids> reversed(reference.ids.rbegin(), reference.ids.rend());
  const auto forwards = embed(*three.engine, reference.ids);
  const auto backwards = embed(*three.engine, reversed);
  for (std::size_t i = 0; i < reference.ids.size(); ++i) {
    const auto alone = embed(*one.engine, {reference.ids[i]})[0];
    const std::size_t mirrored = reference.ids.size() - 1 - i;
    EXPECT_EQ(alone, forwards[i]) << reference.ids[i].size();
    EXPECT_EQ(alone, backwards[mirrored]) << reference.ids[i].size();
  }
}

INSTANTIATE_TEST_SUITE_P(All, Shapes, testing::Values("narrow", "square", "wide"));

TEST(Weights, PrefixShardsAndAnLmHeadChangeNothing) {
  Reference reference = read_reference("narrow");
  const Served plain(reference, DType::kFloat32);
  reference.weights.prefix = "model.";
  reference.weights.lm_head = true;
  reference.weights.shard_bytes_max = 300'000;
  const Served dressed(reference, DType::kFloat32);
  EXPECT_TRUE(std::filesystem::exists(dressed.folder.path() / "model.safetensors.index.json"));
  EXPECT_EQ(embed(*plain.engine, reference.ids), embed(*dressed.engine, reference.ids));
  EXPECT_NE(plain.engine->info().fingerprint, dressed.engine->info().fingerprint);
}

TEST(Weights, AMissingOrMisshapenTensorIsNamed) {
  const Reference reference = read_reference("narrow");
  const auto refusal = [&](ModelConfig config) -> std::string {
    const ScratchFolder folder;
    folder.write("config.json", model_config_json(config));
    folder.write("tokenizer.json", "{}");
    write_synthetic_weights(folder.path(), reference.config, reference.weights);
    try {
      (void)create_engine({.model_dir = folder.path(), .measure_cost = false});
    } catch (const FatalError& error) {
      return error.what();
    }
    return "";
  };
  ModelConfig deeper = reference.config;
  deeper.num_hidden_layers = 4;
  EXPECT_NE(refusal(deeper).find("layers.3."), std::string::npos) << refusal(deeper);
  ModelConfig wider = reference.config;
  wider.intermediate_size = 416;
  EXPECT_NE(refusal(wider).find("gate_proj"), std::string::npos) << refusal(wider);
}

TEST(Weights, ThatAreNotFiniteAreReportedPerVector) {
  const Reference reference = read_reference("narrow");
  const Served served(reference, DType::kFloat32);
  // A NaN in one row of the table: only the sequence that uses it is not finite.
  auto bytes = read_small_file(served.folder.path() / "model.safetensors", 1 << 28).value();
  const auto folder = SafetensorsFolder::open(served.folder.path());
  const auto table = folder->find("embed_tokens.weight")->bytes;
  const auto at =
      static_cast<std::size_t>(table.data() - folder->files()[0].mapping.bytes().data());
  bytes[at + 7 * 128 * 2] = '\xC0';
  bytes[at + 7 * 128 * 2 + 1] = '\x7F';
  served.folder.write("model.safetensors", bytes);
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    const auto engine = create_engine({.model_dir = served.folder.path(),
                                       .max_batch_tokens = 1024,
                                       .weight_type = type,
                                       .measure_cost = false});
    engine->enqueue(0, pack({{1, 2, 3}, {5, 7, 9}, {4}}).view());
    engine->wait(0);
    const auto finite = engine->finite(0);
    EXPECT_EQ(std::vector<std::uint8_t>(finite.begin(), finite.end()),
              (std::vector<std::uint8_t>{1, 0, 1}));
  }
}

}  // namespace
}  // namespace tessera::worker
