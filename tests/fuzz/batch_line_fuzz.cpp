// Any bytes as a line of a batch: what is taken makes a chunk that the coordinator's own check
// passes, and what is refused is told in JSON that reads back.
#include <sodium.h>

#include <cstdint>
#include <string>

#include "clients/gateway/batches/batch_progress.hpp"
#include "clients/gateway/batches/batch_request.hpp"
#include "clients/gateway/batches/lines/batch_line.hpp"
#include "clients/gateway/batches/lines/result_lines.hpp"
#include "common/check.hpp"

namespace {

using namespace tessera;
using namespace tessera::gateway;

void check_line(std::string line) {
  static const LineNames kNames("batch_fuzz");
  const std::string before = line;
  auto read = read_batch_line(line, 100);
  CHECK(line == before);
  if (const auto* fault = std::get_if<BatchFault>(&read)) {
    CHECK(!fault->code.empty() && !fault->message.empty());
    BatchRecord record;
    record.id = "batch_fuzz";
    record.faults = {*fault};
    CHECK(read_batch(stored_json(record)).ok());
    return;
  }
  auto& taken = std::get<BatchLine>(read);
  CHECK(!taken.custom_id.empty() && taken.custom_id.size() <= kCustomIdBytesMax);
  protocol::ModelInfo model;
  model.name = "m";
  model.hidden_size = 256;
  judge_batch_line(taken, model, false);
  if (taken.read.problem) {
    std::string told = kNames.refused(1, taken.custom_id, *taken.read.problem);
    CHECK(read_json_object(told, [](std::string_view, JsonValue&) { return Result<void>(); }));
    return;
  }
  BatchProgress progress;
  progress.plan.specs = {taken.read.call.spec};
  const auto again = read_progress(to_json(progress));
  CHECK(again.ok() && again->plan == progress.plan);
  const protocol::ItemBlock items = take_items(taken.read.call.items);
  CHECK(items.sizes.size() <= 100 && protocol::validate(items).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int kReady = sodium_init();
  CHECK(kReady >= 0);
  const std::string text(reinterpret_cast<const char*>(data), size);
  check_line(text);
  std::string body = text;
  (void)read_batch_request(body);
  if (const auto record = read_batch(text)) {
    CHECK(read_batch(stored_json(*record)).ok());
  }
  (void)read_progress(text);
  return 0;
}
