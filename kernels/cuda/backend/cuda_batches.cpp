// A batch of CudaBackend from its start to its end: whether its operations are launched, recorded
// as a graph or replayed, and the copies around them.

#include <unistd.h>

#include <cstdlib>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/backend/graph_sizes.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"

namespace tessera::kernels::cuda {

// The size of the graph that the batch runs as, if any.
std::optional<BatchSize> CudaBackend::graph_batch(const CudaSlot& slot,
                                                  const PackedBatchView& batch) const {
  const auto size = graph_size(batch.total_tokens(), batch.num_sequences(), limits_);
  if (!graphs_ || !size) {
    return std::nullopt;
  }
  const BatchSize whole{.tokens = size->tokens, .sequences = size->sequences, .kind = batch.kind()};
  if (recording_ == Recording::kDone && !slot.graphs.contains(whole)) {
    return std::nullopt;
  }
  return whole;
}

// Unless all was recorded at start, a size's first batch is launched plainly, which loads all
// kernels' code; the second is recorded.
CudaBackend::Mode CudaBackend::choose_mode(CudaSlot& slot,
                                           const std::optional<BatchSize>& size) const {
  if (!size) {
    return Mode::kLaunch;
  }
  const auto [graph, first] = slot.graphs.try_emplace(*size);
  if (recording_ == Recording::kNow) {
    return Mode::kRecord;
  }
  if (first) {
    return Mode::kLaunch;
  }
  return graph->second.get() == nullptr ? Mode::kRecord : Mode::kReplay;
}

std::vector<RecordedSize> CudaBackend::recorded_sizes() const {
  return graphs_ ? recorded_batches(limits_) : std::vector<RecordedSize>();
}

void CudaBackend::record(bool on) {
  CHECK(active_ == nullptr && recording_ != Recording::kDone);
  recording_ = on ? Recording::kNow : Recording::kDone;
}

Backend::Start CudaBackend::begin(BatchSlot& slot, const PackedBatchView& batch) {
  cuda_check(cudaSetDevice(device_));
  CudaSlot& s = cuda_slot(slot);
  CHECK(active_ == nullptr);
  CHECK(batch.total_tokens() > 0 && batch.total_tokens() <= limits_.max_tokens);
  CHECK(batch.num_sequences() > 0 && batch.num_sequences() <= limits_.max_sequences);
  const std::optional<BatchSize> bucket = graph_batch(s, batch);
  s.stage(batch, bucket);
  s.copy_in(copy_in_.get());
  cuda_check(cudaEventRecord(s.staged_event.get(), copy_in_.get()));
  cuda_check(cudaStreamWaitEvent(compute_.get(), s.staged_event.get()));
  inject_fault();
  // Batches that are launched as they are may be on their way side by side, in turns.
  active_ = bucket ? &s : nullptr;
  mode_ = choose_mode(s, bucket);
  if (mode_ == Mode::kRecord) {
    // A recording holds for every batch of its size, so it takes the bounds, not this batch's
    // tiles.
    s.set_tile_counts(max_attention_tiles(*plan_, s.size().tokens, s.size().sequences));
    cuda_check(cudaStreamBeginCapture(compute_.get(), cudaStreamCaptureModeRelaxed));
  }
  return mode_ == Mode::kReplay ? Start::kReplay : Start::kQueue;
}

std::uint64_t CudaBackend::cut(BatchSlot& slot) {
  CHECK(active_ == nullptr && cuda_slot(slot).batch().tokens > 0);
  Event& event = cuts_[next_cut_ % kCutsMax];
  if (event.get() == nullptr) event = make_event();
  cuda_check(cudaEventRecord(event.get(), compute_.get()));
  return next_cut_++;
}

void CudaBackend::wait_cut(std::uint64_t ticket) {
  CHECK(ticket < next_cut_ && next_cut_ - ticket <= kCutsMax);
  cuda_check(cudaEventSynchronize(cuts_[ticket % kCutsMax].get()));
}

void CudaBackend::end(BatchSlot& slot) {
  CudaSlot& s = cuda_slot(slot);
  CHECK(active_ == nullptr || active_ == &s);
  if (mode_ == Mode::kRecord) {
    cudaGraph_t recorded = nullptr;
    cuda_check(cudaStreamEndCapture(compute_.get(), &recorded));
    const Graph graph(recorded);
    cudaGraphExec_t executable = nullptr;
    cuda_check(cudaGraphInstantiate(&executable, graph.get(), 0));
    s.graphs.at(s.size()) = GraphExec(executable);
  }
  if (recording_ == Recording::kNow && mode_ == Mode::kRecord) {
    cuda_check(cudaGraphUpload(s.graphs.at(s.size()).get(), compute_.get()));
  } else if (mode_ != Mode::kLaunch) {
    cuda_check(cudaGraphLaunch(s.graphs.at(s.size()).get(), compute_.get()));
  }
  cuda_check(cudaEventRecord(s.computed_event.get(), compute_.get()));
  cuda_check(cudaStreamWaitEvent(copy_out_.get(), s.computed_event.get()));
  s.copy_out(copy_out_.get());
  cuda_check(cudaEventRecord(s.done_event.get(), copy_out_.get()));
  active_ = nullptr;
  mode_ = Mode::kLaunch;
}

void CudaBackend::wait(BatchSlot& slot) {
  cuda_check(cudaEventSynchronize(cuda_slot(slot).done_event.get()));
}

std::span<const float> CudaBackend::vectors(const BatchSlot& slot) const {
  return cuda_slot(slot).vectors();
}

std::span<const std::uint8_t> CudaBackend::finite(const BatchSlot& slot) const {
  return cuda_slot(slot).finite();
}

std::int64_t CudaBackend::launch_rows(std::int64_t rows) const {
  if (active_ == nullptr || active_->size() == active_->batch()) {
    return rows;
  }
  if (rows == active_->batch().tokens) {
    return active_->size().tokens;
  }
  CHECK(rows == active_->batch().sequences);
  return active_->size().sequences;
}

// A test build can make a GPU fault, or hang, to see that the worker ends cleanly: in its batch
// TESSERA_FAULT_AT_BATCH or in the first after the file TESSERA_FAULT_WHEN has appeared;
// TESSERA_FAULT_DEVICE names one GPU of a group, and TESSERA_FAULT_HANG asks for the hang.
void CudaBackend::inject_fault() {
#ifdef TESSERA_FAULT_INJECTION
  const char* device = std::getenv("TESSERA_FAULT_DEVICE");
  const char* at = std::getenv("TESSERA_FAULT_AT_BATCH");
  const char* when = std::getenv("TESSERA_FAULT_WHEN");
  if (recording_ == Recording::kNow || batches_ < 0 ||
      (device != nullptr && std::atoi(device) != device_)) {
    return;
  }
  if (++batches_ == 1) load_failures();
  if ((at == nullptr || batches_ != std::atoll(at)) &&
      (when == nullptr || ::access(when, F_OK) != 0)) {
    return;
  }
  batches_ = -1;  // once
  if (std::getenv("TESSERA_FAULT_HANG") != nullptr) {
    launch_hang(stream());
  } else {
    launch_fault(stream());
  }
#endif
}

}  // namespace tessera::kernels::cuda
