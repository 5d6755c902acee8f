#include "worker/engine/self_test.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "common/model/settings/small_file.hpp"

namespace tessera::worker {
namespace {

using Ids = std::vector<std::int32_t>;
using Vector = std::vector<float>;

constexpr double kCosineMin = 0.9999;
constexpr double kUnitErrorMax = 1e-4;
constexpr std::size_t kGoldenBytesMax = 64 << 20;

SelfTestResult passed(std::string what, std::string detail = "") {
  return {.what = std::move(what), .passed = true, .detail = std::move(detail)};
}
SelfTestResult failed(std::string what, std::string detail) {
  return {.what = std::move(what), .passed = false, .detail = std::move(detail)};
}

double dot(const Vector& a, const Vector& b) {
  double total = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    total += double{a[i]} * b[i];
  }
  return total;
}

double cosine(const Vector& a, const Vector& b) {
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

// One vector per sequence; an empty one where it is not finite. Sequences run in as many batches as
// the engine's limits ask for.
std::vector<Vector> embed(Engine& engine, const std::vector<Ids>& sequences) {
  const EngineInfo& info = engine.info();
  const auto hidden = static_cast<std::size_t>(info.hidden_size);
  std::vector<Vector> vectors;
  Ids ids, cu_seqlens = {0};
  const auto flush = [&] {
    engine.enqueue(0, {.input_ids = ids, .cu_seqlens = cu_seqlens, .segments = {}});
    engine.wait(0);
    for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
      const auto row = engine.vectors(0).subspan(i * hidden, hidden);
      vectors.push_back(engine.finite(0)[i] == 1 ? Vector(row.begin(), row.end()) : Vector());
    }
    ids.clear();
    cu_seqlens = {0};
  };
  for (const Ids& sequence : sequences) {
    if (static_cast<std::int64_t>(ids.size() + sequence.size()) > info.max_batch_tokens ||
        static_cast<std::int64_t>(cu_seqlens.size()) > info.max_sequences) {
      flush();
    }
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
  }
  flush();
  return vectors;
}

SelfTestResult test_tokenizer(const Result<FolderTokenizer>& loaded) {
  const std::string what = "the tokenizer adds its end token";
  if (!loaded) {
    return failed(what, loaded.error().message);
  }
  const auto encoding = loaded->tokenizer.encode("!");
  std::string text;
  for (const std::int32_t id : encoding->ids) {
    text += (text.empty() ? "\"!\" gives " : ", ") + std::to_string(id);
  }
  return passed(what, text);
}

SelfTestResult test_batches(Engine& engine) {
  const std::string what = "texts of several lengths give the same unit vectors in any batch";
  std::vector<Ids> sequences;
  std::int64_t id = 1;
  for (const std::int64_t len : {1, 2, 17, 64}) {
    Ids& sequence = sequences.emplace_back();
    for (std::int64_t i = 0; i < std::min(len, engine.info().max_seqlen); ++i) {
      id = (id * 7919 + 13) % engine.info().vocab_size;
      sequence.push_back(static_cast<std::int32_t>(id));
    }
  }
  const auto together = embed(engine, sequences);
  if (together != embed(engine, sequences)) {
    return failed(what, "the same batch gave other vectors the second time");
  }
  double lowest = 1;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto alone = embed(engine, {sequences[i]});
    const std::string length = std::to_string(sequences[i].size()) + " tokens: ";
    if (together[i].empty() || alone[0].empty()) {
      return failed(what, length + "the vector is not finite");
    }
    if (std::abs(std::sqrt(dot(alone[0], alone[0])) - 1) > kUnitErrorMax) {
      return failed(what, length + "the vector has not length 1");
    }
    lowest = std::min(lowest, cosine(alone[0], together[i]));
  }
  const std::string detail = "lowest cosine " + std::to_string(lowest);
  return lowest >= kCosineMin ? passed(what, detail) : failed(what, detail);
}

struct Golden {
  std::vector<std::string> texts;
  std::vector<Ids> ids;
  std::vector<Vector> vectors;
};

std::optional<Golden> parse_golden(const std::string& text) {
  const auto root = nlohmann::json::parse(text, nullptr, false);
  Golden golden;
  try {
    for (const auto& item : root) {
      golden.texts.push_back(item.at("text"));
      golden.ids.push_back(item.at("ids").get<Ids>());
      golden.vectors.push_back(item.at("vec").get<Vector>());
    }
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return golden;
}

SelfTestResult test_golden(Engine& engine, const Result<FolderTokenizer>& loaded,
                           const std::string& text) {
  const std::string what = "the golden vectors are reached";
  const auto golden = parse_golden(text);
  if (!golden || golden->ids.empty()) {
    return failed(what, "golden.json is not a list of text, ids and vec");
  }
  for (std::size_t i = 0; loaded.ok() && i < golden->ids.size(); ++i) {
    const auto encoding = loaded->tokenizer.encode(golden->texts[i]);
    if (!encoding || encoding->ids != golden->ids[i]) {
      return failed(what, "text " + std::to_string(i) + " has other ids");
    }
  }
  double lowest = 1;
  const auto vectors = embed(engine, golden->ids);
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    if (vectors[i].size() != golden->vectors[i].size()) {
      return failed(what, "vector " + std::to_string(i) + " is not finite or has another width");
    }
    lowest = std::min(lowest, cosine(vectors[i], golden->vectors[i]));
  }
  const std::string detail =
      std::to_string(vectors.size()) + " texts, lowest cosine " + std::to_string(lowest);
  return lowest >= kCosineMin ? passed(what, detail) : failed(what, detail);
}

}  // namespace

std::vector<SelfTestResult> run_self_tests(Engine& engine, const ModelFolder& model) {
  const Result<FolderTokenizer> tokenizer = load_tokenizer(model);
  std::vector<SelfTestResult> results = {test_tokenizer(tokenizer), test_batches(engine)};
  const auto golden = model.dir / "golden.json";
  if (is_there(golden)) {
    const auto text = read_small_file(golden, kGoldenBytesMax);
    results.push_back(text ? test_golden(engine, tokenizer, *text)
                           : failed("the golden vectors are reached", text.error().message));
  }
  return results;
}

}  // namespace tessera::worker
