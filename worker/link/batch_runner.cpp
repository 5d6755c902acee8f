#include "worker/link/batch_runner.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "common/float16.hpp"

namespace tessera::worker {
namespace {

using Clock = std::chrono::steady_clock;

// A coordinator sends at most `slots` batches; after a lost connection those of the old one may
// still be held beside those of the new one.
constexpr std::size_t kHeldMax = 16;
// More sequences than this without a finite vector in one batch are the model's doing.
constexpr std::size_t kRetriedMax = 64;

std::int64_t to_ns(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// The batch as the engine takes it; the ids are copied because a payload is aligned to nothing.
struct PackedIds {
  explicit PackedIds(const protocol::Batch& batch) {
    input_ids.resize(batch.payload.size() / sizeof(std::int32_t));
    if (!input_ids.empty()) {
      std::memcpy(input_ids.data(), batch.payload.data(), input_ids.size() * sizeof(std::int32_t));
    }
    cu_seqlens.reserve(batch.lengths.size() + 1);
    std::int64_t end = 0;
    cu_seqlens.push_back(0);
    for (const std::uint32_t length : batch.lengths) {
      end += length;
      consistent = consistent && end <= static_cast<std::int64_t>(input_ids.size());
      cu_seqlens.push_back(static_cast<std::int32_t>(end & 0x7FFFFFFF));
    }
    consistent = consistent && end == static_cast<std::int64_t>(input_ids.size()) &&
                 batch.payload.size() % sizeof(std::int32_t) == 0;
  }
  kernels::PackedBatchView view() const { return {input_ids, cu_seqlens}; }

  std::vector<std::int32_t> input_ids;
  std::vector<std::int32_t> cu_seqlens;
  bool consistent = true;
};

protocol::BatchResult answer_to(const protocol::Batch& batch, ErrorCode code) {
  return {
      .epoch = batch.epoch,
      .batch_id = batch.batch_id,
      .attempt = batch.attempt,
      .codes = std::vector<std::uint8_t>(batch.lengths.size(), static_cast<std::uint8_t>(code))};
}

}  // namespace

BatchRunner::BatchRunner(EngineFactory factory, const net::WakeUp& wake_up)
    : wake_up_(wake_up),
      outcomes_(kHeldMax),
      thread_([this, factory = std::move(factory)] { run(factory); }) {}

BatchRunner::~BatchRunner() {
  tasks_.close();
  outcomes_.close();
}

std::optional<EngineInfo> BatchRunner::wait_ready(std::chrono::milliseconds time_max) {
  if (ready_future_.wait_for(time_max) != std::future_status::ready) {
    return std::nullopt;
  }
  return ready_future_.get();
}

bool BatchRunner::submit(protocol::Batch batch, std::uint64_t tag) {
  Task task{std::move(batch), tag};
  const auto lane = task.batch.express ? Tasks::Lane::kExpress : Tasks::Lane::kBatches;
  const bool taken = held_ < kHeldMax && tasks_.push(task, lane);
  held_ += taken ? 1 : 0;
  return taken;
}

std::optional<BatchRunner::Outcome> BatchRunner::take_result() {
  if (failed_.load(std::memory_order_acquire)) {
    std::rethrow_exception(failure_);
  }
  auto outcome = outcomes_.try_pop();
  held_ -= outcome ? 1 : 0;
  return outcome;
}

Clock::duration BatchRunner::running_for() const {
  const std::int64_t since = running_since_ns_.load(std::memory_order_relaxed);
  return since == 0 ? Clock::duration::zero()
                    : std::chrono::nanoseconds(to_ns(Clock::now()) - since);
}

void BatchRunner::run(const EngineFactory& factory) {
  bool ready = false;
  try {
    const std::unique_ptr<Engine> engine = factory();
    slots_ = engine->slots();
    ready_.set_value(engine->info());
    ready = true;
    serve(*engine);
  } catch (...) {
    if (!ready) {
      ready_.set_exception(std::current_exception());
      return;
    }
    failure_ = std::current_exception();
    failed_.store(true, std::memory_order_release);
    wake_up_.notify();
  }
}

void BatchRunner::serve(Engine& engine) {
  using Lane = Tasks::Lane;
  std::deque<Running> running;
  std::deque<Running> express;  // One at most.
  int next_slot = 0;
  const auto has_room = [&] { return static_cast<int>(running.size()) < engine.slots(); };
  for (;;) {
    if (express.empty() && start_next(engine, Lane::kExpress, engine.slots(), express)) {
      continue;
    }
    if (has_room() && start_next(engine, Lane::kBatches, next_slot, running)) {
      next_slot = running.empty() ? next_slot : (running.back().slot + 1) % engine.slots();
      continue;
    }
    if (express.empty() && running.empty()) {
      if (!tasks_.wait()) {
        return;
      }
      continue;
    }
    std::deque<Running>& first = express.empty() ? running : express;
    const auto has_task = [&] {
      return &first == &running &&
             (tasks_.has(Lane::kExpress) || (has_room() && tasks_.has(Lane::kBatches)));
    };
    if (!engine.wait_unless(first.front().slot, has_task)) {
      continue;
    }
    Running oldest = std::move(first.front());
    first.pop_front();
    finish(engine, std::move(oldest));
    running_since_ns_ = running.empty() ? 0 : to_ns(Clock::now());
  }
}

bool BatchRunner::start_next(Engine& engine, Tasks::Lane lane, int slot,
                             std::deque<Running>& running) {
  auto task = tasks_.take(lane);
  if (!task) {
    return false;
  }
  Running next{.task = *std::move(task), .slot = slot, .start = {}};
  if (start(engine, next)) {
    running.push_back(std::move(next));
  }
  return true;
}

bool BatchRunner::start(Engine& engine, Running& running) {
  if (running.task.tag < oldest_wanted_) {
    deliver({answer_to(running.task.batch, ErrorCode::kCancelled), running.task.tag});
    return false;
  }
  const PackedIds ids(running.task.batch);
  running.start = Clock::now();
  const std::size_t answer_bytes = running.task.batch.lengths.size() *
                                   static_cast<std::size_t>(engine.info().hidden_size) *
                                   sizeof(std::uint16_t);
  const bool fits_slot =
      !running.task.batch.express || ids.view().total_tokens() <= engine.info().express_tokens;
  const Result<void> runnable =
      ids.consistent && fits_slot && answer_bytes <= protocol::kPayloadBytesMax
          ? engine.check(ids.view())
          : Error{ErrorCode::kInternal, "lengths and ids do not agree, or are too many"};
  if (!runnable) {
    deliver({answer_to(running.task.batch, ErrorCode::kInternal), running.task.tag});
    return false;
  }
  if (running_since_ns_ == 0) {
    running_since_ns_ = to_ns(running.start);  // Some devices compute inside enqueue.
  }
  engine.enqueue(running.slot, ids.view());
  return true;
}

void BatchRunner::finish(Engine& engine, Running running) {
  const protocol::Batch& batch = running.task.batch;
  protocol::BatchResult result = answer_to(batch, ErrorCode::kNotFinite);
  result.compute_us = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(computing_time(engine, running))
          .count());
  const std::vector<std::size_t> not_finite = take_vectors(engine, running.slot, result);
  if (batch.lengths.size() > 1 && not_finite.size() <= kRetriedMax) {
    retry_alone(engine, running, not_finite, result);
  }
  deliver({std::move(result), running.task.tag, std::move(running.task.batch.lengths),
           std::move(running.task.batch.traces)});
}

// An ordinary batch only waited while the one before it and express ones were computing; an express
// one is given its time from start to end, which is what its query waited for.
Clock::duration BatchRunner::computing_time(const Engine& engine, const Running& running) {
  const auto now = Clock::now();
  if (running.task.batch.express) {
    double squares = 0;
    for (const std::uint32_t length : running.task.batch.lengths) {
      squares += static_cast<double>(length) * length;
    }
    const auto tokens =
        static_cast<double>(running.task.batch.payload.size() / sizeof(std::int32_t));
    const std::chrono::duration<double> alone(engine.info().cost.seconds(tokens, squares));
    const auto taken = now - running.start;
    overtaken_for_ += std::min(taken, std::chrono::duration_cast<Clock::duration>(alone));
    return taken;
  }
  const auto taken = now - std::max(running.start, last_end_);
  last_end_ = now;
  return taken - std::min(taken, std::exchange(overtaken_for_, {}));
}

// All rows that are finite; returns which are not.
std::vector<std::size_t> BatchRunner::take_vectors(const Engine& engine, int slot,
                                                   protocol::BatchResult& result) {
  const std::size_t rows = result.codes.size();
  const auto width = static_cast<std::size_t>(engine.info().hidden_size);
  result.payload.resize(rows * width * sizeof(std::uint16_t));
  std::vector<std::size_t> not_finite;
  for (std::size_t i = 0; i < rows; ++i) {
    if (!take_vector(engine, slot, i, result, i)) {
      not_finite.push_back(i);
    }
  }
  return not_finite;
}

// Vector `from` of the slot as the result's row `to`, unless it is not finite.
bool BatchRunner::take_vector(const Engine& engine, int slot, std::size_t from,
                              protocol::BatchResult& result, std::size_t to) {
  if (engine.finite(slot)[from] == 0) {
    return false;
  }
  const auto width = static_cast<std::size_t>(engine.info().hidden_size);
  // A payload's memory is aligned for any type, and rows have an even number of bytes.
  auto* row = reinterpret_cast<std::uint16_t*>(result.payload.data()) + to * width;
  to_float16(engine.vectors(slot).subspan(from * width, width), {row, width});
  result.codes[to] = static_cast<std::uint8_t>(ErrorCode::kOk);
  return true;
}

// A sequence with NaN can spoil those beside it, whose tiles of keys reach into its own: alone each
// shows what it is itself.
void BatchRunner::retry_alone(Engine& engine, const Running& running,
                              const std::vector<std::size_t>& sequences,
                              protocol::BatchResult& result) {
  const PackedIds ids(running.task.batch);
  for (const std::size_t i : sequences) {
    const auto begin = static_cast<std::size_t>(ids.cu_seqlens[i]);
    const std::int32_t length = ids.cu_seqlens[i + 1] - ids.cu_seqlens[i];
    const std::array<std::int32_t, 2> cu_seqlens = {0, length};
    engine.enqueue(
        running.slot,
        {.input_ids = std::span(ids.input_ids).subspan(begin, static_cast<std::size_t>(length)),
         .cu_seqlens = cu_seqlens});
    engine.wait(running.slot);
    take_vector(engine, running.slot, 0, result, i);
  }
}

void BatchRunner::deliver(Outcome outcome) {
  if (outcomes_.push(std::move(outcome))) {
    wake_up_.notify();
  }
}

}  // namespace tessera::worker
