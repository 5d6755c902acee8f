// Model folders in, vectors out: what a coordinator and a CPU worker in float32 make of a folder,
// by their own functions, without sockets and Redis between them.
//
// usage: folder_vectors < CASES
//   a line in:  {"dir": DIR, "items": [{"text": T, "query": false, "prompt_name": "",
//               "truncate": false}]}
//   a line out: {"max_seqlen": N, "fingerprint": F, "items": [{"ids": [...], "vector": [...]} or
//               {"error": E}]} with vectors as the worker has them, cut to the width of the answer;
//               or, for a folder that is refused, {"coordinator": E, "worker": E} with what each
//               process says, null where that one would take it.

#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.hpp"
#include "common/log.hpp"
#include "common/model/model_folder.hpp"
#include "coordinator/core/items/resolved_spec.hpp"
#include "coordinator/core/items/served_model.hpp"
#include "coordinator/model_catalog.hpp"
#include "worker/create_engine.hpp"
#include "worker/engine/engine.hpp"
#include "worker/engine/self_test.hpp"

namespace {

using nlohmann::json;
using tessera::coordinator::CatalogEntry;
using tessera::coordinator::ServedModel;

// Small batches, so that a folder costs little more than its weights.
constexpr std::int64_t kBatchTokens = 512;

// What `make` gives, or the sentence with which it refuses.
template <typename Make>
auto attempt(Make make, std::string& refusal) -> std::optional<decltype(make())> {
  try {
    return make();
  } catch (const tessera::FatalError& error) {
    refusal = error.what();
    return std::nullopt;
  }
}

// As a worker does before it registers. The self-tests cost as much as all the rest, so they run
// only where they can tell something: on a folder that the coordinator refuses.
std::unique_ptr<tessera::worker::Engine> make_engine(const std::string& dir, bool with_self_tests) {
  const auto model = tessera::read_model_folder(dir);
  if (!model) {
    throw tessera::FatalError(model.error().message);
  }
  auto engine = tessera::worker::create_engine({.model_dir = dir,
                                                .threads = 1,
                                                .max_batch_tokens = kBatchTokens,
                                                .weight_type = tessera::kernels::DType::kFloat32,
                                                .measure_cost = false});
  if (!with_self_tests) {
    return engine;
  }
  for (const auto& result : tessera::worker::run_self_tests(*engine, *model)) {
    if (!result.passed) {
      throw tessera::FatalError("self-test failed: " + result.what + ": " + result.detail);
    }
  }
  return engine;
}

struct Prepared {
  std::vector<std::int32_t> ids;  // as the coordinator sends them to a worker
  std::uint32_t dimensions = 0;   // that it cuts the worker's vector to
};

tessera::Result<Prepared> prepare(const CatalogEntry& entry, const json& item) {
  const bool cut = item.value("truncate", false);
  const tessera::protocol::EmbedSpec spec{
      .query = item.value("query", false),
      .truncate = cut ? tessera::protocol::Truncate::kRight : tessera::protocol::Truncate::kNone,
      .prompt_name = item.value("prompt_name", "")};
  const auto resolved = tessera::coordinator::resolve(spec, std::span(&entry.model, 1));
  if (!resolved) {
    return resolved.error();
  }
  const std::string text = resolved->prefix + item.value("text", "");
  auto encoding = entry.tokenizer.encode(
      text, {.truncate = cut ? tessera::Truncate::kRight : tessera::Truncate::kNone,
             .max_tokens = entry.model.max_seqlen});
  if (!encoding) {
    return encoding.error();
  }
  return Prepared{.ids = std::move(encoding->ids), .dimensions = resolved->dimensions};
}

json embed(tessera::worker::Engine& engine, const Prepared& item) {
  const std::vector<std::int32_t>& ids = item.ids;
  const std::vector<std::int32_t> ends = {0, static_cast<std::int32_t>(ids.size())};
  const tessera::kernels::PackedBatchView batch{.input_ids = ids, .cu_seqlens = ends};
  if (const auto checked = engine.check(batch); !checked) {
    return {{"error", "worker: " + checked.error().message}};
  }
  engine.enqueue(0, batch);
  engine.wait(0);
  if (engine.finite(0)[0] == 0) {
    return {{"error", "worker: the vector is not finite"}};
  }
  return {{"ids", ids}, {"vector", engine.vectors(0).first(item.dimensions)}};
}

json run(const json& request) {
  const std::string dir = request.at("dir");
  std::string coordinator, worker;
  const auto entries =
      attempt([&] { return tessera::coordinator::load_models({"case=" + dir}); }, coordinator);
  const auto engine = attempt([&] { return make_engine(dir, !entries); }, worker);
  if (!entries || !engine) {
    return {{"coordinator", entries ? json(nullptr) : json(coordinator)},
            {"worker", engine ? json(nullptr) : json(worker)}};
  }
  const CatalogEntry& entry = entries->front();
  json items = json::array();
  for (const json& item : request.at("items")) {
    const auto prepared = prepare(entry, item);
    items.push_back(prepared ? embed(**engine, *prepared)
                             : json{{"error", prepared.error().message}});
  }
  return {{"max_seqlen", entry.model.max_seqlen},
          {"fingerprint", (*engine)->info().fingerprint},
          {"items", std::move(items)}};
}

}  // namespace

int main() {
  tessera::log::init("folder_vectors", "off");
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << run(json::parse(line)).dump() << '\n' << std::flush;
  }
  return 0;
}
