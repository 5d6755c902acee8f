#include "kernels/cpu/cpu_backend.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>
#include <utility>

#include "common/check.hpp"

namespace tessera::kernels::cpu {
namespace {

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(std::size_t bytes) : bytes_(bytes) {}
  std::size_t bytes() const override { return bytes_.size(); }
  void* data() override { return bytes_.data(); }

 private:
  AlignedBytes bytes_;
};

int team_size(int threads) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (threads < 0 || threads > 1024) {
    throw FatalError("threads is " + std::to_string(threads) + ", not within 0..1024");
  }
  return threads == 0 ? cores : threads;
}

// The first number in a file; nothing there reads as `fallback` ("max" in a control group's file).
std::uint64_t read_number(const char* path, std::uint64_t fallback) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? value : fallback;
}

std::uint64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::uint64_t kibibytes = 0;
  while (file >> name >> kibibytes && std::getline(file, unit)) {
    if (name == "MemAvailable:") {
      return kibibytes * 1024;
    }
  }
  throw FatalError("/proc/meminfo does not say how much memory is available");
}

}  // namespace

CpuBackend::CpuBackend(const CpuOptions& options)
    : rows_(best_row_kernels(options.weight_type)),
      team_(team_size(options.threads)),
      matmul_(rows_.activation, team_.members()),
      scratch_(static_cast<std::size_t>(team_.members())) {}

CpuBackend::~CpuBackend() = default;

std::string CpuBackend::name() const {
  return "cpu " + std::string(rows_.name) + ", " + std::to_string(team_.members()) +
         (team_.members() == 1 ? " thread" : " threads");
}

std::size_t CpuBackend::free_memory_bytes() const {
  const std::uint64_t machine = available_memory_bytes();
  const std::uint64_t limit = read_number("/sys/fs/cgroup/memory.max", UINT64_MAX);
  const std::uint64_t used = read_number("/sys/fs/cgroup/memory.current", 0);
  return std::min(machine, limit > used ? limit - used : 0);
}

std::vector<MemoryTerm> CpuBackend::own_memory(const BatchLimits& limits, const EncoderShape& shape,
                                               int slots) const {
  const auto members = static_cast<std::size_t>(team_.members());
  const std::size_t head = packed_head_bytes(limits.max_seqlen, rows_.activation);
  const std::int64_t cols =
      std::max({shape.hidden_size, shape.attention.q_width(), shape.intermediate_size});
  const std::size_t tail =
      static_cast<std::size_t>(kFilledRowsMax * cols) * size_of(rows_.activation);
  const std::int64_t normed = (limits.max_tokens + limits.max_sequences) * shape.hidden_size;
  return {{"normed rows", static_cast<std::size_t>(normed) * size_of(rows_.activation)},
          {std::to_string(slots) + " batches in flight: ids, positions, vectors",
           static_cast<std::size_t>(slots) * CpuBatchSlot::bytes(limits, shape)},
          {"rotations of " + std::to_string(limits.max_seqlen) + " positions",
           static_cast<std::size_t>(limits.max_seqlen * kHeadDim) * sizeof(float)},
          {"scratch of " + std::to_string(members) + " threads: products, a packed head",
           members * (kProductRows * kPanelWidth * sizeof(float) + tail + 2 * head)}};
}

std::unique_ptr<Buffer> CpuBackend::allocate(std::size_t bytes, std::string_view) {
  check_start();
  return std::make_unique<CpuBuffer>(bytes);
}

std::unique_ptr<LinearWeight> CpuBackend::load_linear(const LinearSource& source) {
  check_start();
  auto weight = CpuLinearWeight::load(source, rows_.activation, matmul_, team_);
  cols_max_ = std::max(cols_max_, weight->cols());
  return weight;
}

std::unique_ptr<Buffer> CpuBackend::load_vector(const MatrixSlice& source) {
  check_start();
  auto buffer = std::make_unique<CpuBuffer>(static_cast<std::size_t>(source.cols) * sizeof(float));
  copy_rows(static_cast<std::byte*>(buffer->data()), DType::kFloat32, source, 0, 1);
  return buffer;
}

std::unique_ptr<Buffer> CpuBackend::load_table(const MatrixSlice& source) {
  check_start();
  auto buffer = std::make_unique<CpuBuffer>(static_cast<std::size_t>(source.rows * source.cols) *
                                            size_of(rows_.activation));
  copy_rows(static_cast<std::byte*>(buffer->data()), rows_.activation, source, 0, source.rows);
  return buffer;
}

void CpuBackend::finish_loading() {
  for (Scratch& scratch : scratch_) {
    scratch.product = AlignedBytes(kProductRows * kPanelWidth * sizeof(float));
    scratch.tail = AlignedBytes(static_cast<std::size_t>(kFilledRowsMax * cols_max_) *
                                size_of(rows_.activation));
    // Rows that only fill a product up are multiplied too; their results are not used.
    std::memset(scratch.tail.data(), 0, scratch.tail.size());
  }
}

std::unique_ptr<BatchSlot> CpuBackend::make_slot(const BatchLimits& limits,
                                                 const EncoderShape& shape) {
  check_start();
  if (shape.attention.head_dim != kHeadDim) {
    throw FatalError("head_dim is " + std::to_string(shape.attention.head_dim) +
                     "; attention is built for 128");
  }
  if (limits.max_seqlen > max_seqlen_) {
    max_seqlen_ = limits.max_seqlen;
    rope_theta_ = 0;
    for (Scratch& scratch : scratch_) {
      scratch.keys = AlignedBytes(packed_head_bytes(max_seqlen_, rows_.activation));
      scratch.values = AlignedBytes(packed_head_bytes(max_seqlen_, rows_.activation));
    }
  }
  const auto bytes = [&](std::int64_t rows) {
    return static_cast<std::size_t>(rows * shape.hidden_size) * size_of(rows_.activation);
  };
  if (bytes(limits.max_tokens) > normed_.size()) normed_ = AlignedBytes(bytes(limits.max_tokens));
  if (bytes(limits.max_sequences) > normed_last_.size()) {
    normed_last_ = AlignedBytes(bytes(limits.max_sequences));
  }
  return std::make_unique<CpuBatchSlot>(limits, shape);
}

const float* CpuBackend::rope_table(double theta) {
  if (rope_theta_ != theta) {
    constexpr std::int64_t kHalf = kHeadDim / 2;
    rope_ = AlignedBytes(static_cast<std::size_t>(max_seqlen_ * kHeadDim) * sizeof(float));
    for (std::int64_t i = 0; i < kHalf; ++i) {
      // Frequency and angle in float32, as transformers has them.
      const auto frequency = static_cast<float>(
          std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(kHeadDim)));
      for (std::int64_t p = 0; p < max_seqlen_; ++p) {
        const float angle = static_cast<float>(p) * frequency;
        rope_.as<float>()[p * kHeadDim + i] = std::cos(angle);
        rope_.as<float>()[p * kHeadDim + kHalf + i] = std::sin(angle);
      }
    }
    rope_theta_ = theta;
  }
  return rope_.as<float>();
}

Backend::Start CpuBackend::begin(BatchSlot& slot, const PackedBatchView& batch) {
  CHECK(recording_ == nullptr && batch.segments.empty());
  recording_ = &static_cast<CpuBatchSlot&>(slot);
  recording_->begin(batch, team_.members());
  return Start::kQueue;
}

std::uint64_t CpuBackend::cut(BatchSlot& slot) {
  CHECK(recording_ == &slot);
  recording_->ticket = team_.submit(recording_->take_piece());
  return std::exchange(recording_, nullptr)->ticket;
}

void CpuBackend::resume(BatchSlot& slot) {
  CHECK(recording_ == nullptr);
  recording_ = &static_cast<CpuBatchSlot&>(slot);
}

void CpuBackend::end(BatchSlot& slot) { (void)cut(slot); }

void CpuBackend::wait(BatchSlot& slot) { team_.wait(static_cast<CpuBatchSlot&>(slot).ticket); }

std::span<const float> CpuBackend::vectors(const BatchSlot& slot) const {
  return static_cast<const CpuBatchSlot&>(slot).vectors();
}

std::span<const std::uint8_t> CpuBackend::finite(const BatchSlot& slot) const {
  return static_cast<const CpuBatchSlot&>(slot).finite();
}

CpuBatchSlot& CpuBackend::recording() {
  CHECK(recording_ != nullptr);
  return *recording_;
}

}  // namespace tessera::kernels::cpu

namespace tessera::kernels {

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options);
}

}  // namespace tessera::kernels
