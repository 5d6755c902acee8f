#include "kernels/cuda/backend/cuda_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/check.hpp"
#include "kernels/cuda/backend/graph_sizes.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"

namespace tessera::kernels::cuda {
namespace {

// What CUDA takes by itself, as measured on an H200: the code of our kernels and of the library's
// that were chosen, and a recorded pass of a deep model.
constexpr std::size_t kCodeBytes = std::size_t{384} << 20;
constexpr std::size_t kGraphBytes = std::size_t{1} << 20;

int checked_device(int device) {
  const int count = cuda_device_count();
  if (count == 0) {
    throw FatalError("this machine has no usable NVIDIA GPU");
  }
  if (device < 0 || device >= count) {
    throw FatalError("there is no GPU " + std::to_string(device) + "; this machine has " +
                     std::to_string(count));
  }
  cuda_check(cudaSetDevice(device));
  return device;
}

cudaDeviceProp properties_of(int device) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, device));
  return properties;
}

AttentionPlan plan_for(const AttentionShape& shape, const cudaDeviceProp& properties) {
  return plan_attention(shape, properties.major * 10 + properties.minor,
                        properties.multiProcessorCount);
}

std::size_t rope_table_bytes(const BatchLimits& limits) {
  return static_cast<std::size_t>(limits.max_seqlen * kHeadDim) * sizeof(float);
}

std::size_t squares_bytes(const BatchLimits& limits) {
  return static_cast<std::size_t>(std::max(limits.max_tokens, limits.max_sequences)) *
         sizeof(float);
}

std::size_t gate_up_bytes(const BatchLimits& limits, const EncoderShape& shape) {
  return static_cast<std::size_t>(limits.max_tokens * 2 * shape.intermediate_size) * sizeof(Bf16);
}

}  // namespace

Bf16Weight::Bf16Weight(const LinearSource& source, std::int64_t rows, std::int64_t cols)
    : rows_(rows),
      cols_(cols),
      memory_(static_cast<std::size_t>(rows * cols) * sizeof(Bf16), source.name) {}

CudaBackend::CudaBackend(const CudaOptions& options)
    : device_(checked_device(options.device)),
      properties_(properties_of(device_)),
      compute_(make_stream()),
      copy_in_(make_stream()),
      copy_out_(make_stream()),
      gemm_(options.algorithm_cache.empty() ? default_algorithm_cache_file()
                                            : options.algorithm_cache) {
  (void)plan_for({.num_q_heads = 1, .num_kv_heads = 1}, properties_);  // refuses old GPUs
}

CudaBackend::~CudaBackend() { (void)cudaStreamSynchronize(compute_.get()); }

std::string CudaBackend::name() const { return properties_.name; }

std::string CudaBackend::pci_bus_id() const {
  std::array<char, 32> id{};
  std::snprintf(
      id.data(), id.size(), "%08x:%02x:%02x.0", static_cast<unsigned>(properties_.pciDomainID),
      static_cast<unsigned>(properties_.pciBusID), static_cast<unsigned>(properties_.pciDeviceID));
  return id.data();
}

std::size_t CudaBackend::free_memory_bytes() const {
  std::size_t free = 0;
  std::size_t total = 0;
  cuda_check(cudaSetDevice(device_));
  cuda_check(cudaMemGetInfo(&free, &total));
  return free;
}

std::size_t CudaBackend::scratch_bytes() const {
  const std::size_t free = free_memory_bytes();
  return free > kCodeBytes ? free - kCodeBytes : 0;
}

std::vector<MemoryTerm> CudaBackend::own_memory(const BatchLimits& limits,
                                                const EncoderShape& shape, int slots) const {
  const AttentionPlan plan = plan_for(shape.attention, properties_);
  const auto count = static_cast<std::size_t>(slots);
  const std::string many = std::to_string(slots) + " slots: ";
  const std::size_t graphs = count * recorded_batches(limits).size();
  const std::size_t staged = count * CudaSlot::staged_bytes(limits, plan);
  const std::size_t results = count * CudaSlot::result_bytes(limits, shape.hidden_size);
  return {
      {.what = "gate and up before SwiGLU", .bytes = gate_up_bytes(limits, shape)},
      {.what = "mean squares of rows", .bytes = squares_bytes(limits)},
      {.what = "RoPE table", .bytes = rope_table_bytes(limits)},
      {.what = "matrix-product workspace", .bytes = Gemm::kWorkspaceBytes},
      {.what = "layers of short batches", .bytes = LayerRunner::kDeviceBytes},
      {.what = many + "ids, positions, attention tiles", .bytes = staged},
      {.what = many + "vectors and flags", .bytes = results},
      {.what = std::to_string(graphs) + " recorded passes, at most", .bytes = graphs * kGraphBytes},
      {.what = "kernels' code, at most", .bytes = kCodeBytes},
      {.what = many + "ids, positions, attention tiles", .bytes = staged, .page_locked = true},
      {.what = many + "vectors and flags", .bytes = results, .page_locked = true},
      {.what = "reading weights, until they are loaded",
       .bytes = WeightLoader::page_locked_bytes(),
       .page_locked = true},
  };
}

std::unique_ptr<Buffer> CudaBackend::allocate(std::size_t bytes, std::string_view what) {
  check_start();
  cuda_check(cudaSetDevice(device_));
  auto buffer = std::make_unique<DeviceBuffer>(bytes, what);
  // Rows that no batch wrote yet must hold finite numbers.
  cuda_check(cudaMemsetAsync(buffer->data(), 0, bytes, compute_.get()));
  return buffer;
}

std::unique_ptr<LinearWeight> CudaBackend::load_linear(const LinearSource& source) {
  check_start();
  cuda_check(cudaSetDevice(device_));
  CHECK(!source.slices.empty());
  const std::int64_t cols = source.slices.front().cols;
  std::int64_t rows = 0;
  for (const MatrixSlice& slice : source.slices) {
    CHECK(slice.cols == cols);
    rows += slice.rows;
  }
  if (cols % 8 != 0 || rows % 8 != 0) {
    throw FatalError(source.name + " has shape [" + std::to_string(rows) + ", " +
                     std::to_string(cols) + "]; the GPU needs multiples of 8");
  }
  auto weight = std::make_unique<Bf16Weight>(source, rows, cols);
  if (loader_ == nullptr) {
    loader_ = std::make_unique<WeightLoader>(device_);
  }
  std::int64_t next_row = 0;
  for (const MatrixSlice& slice : source.slices) {
    if (source.layout == RowLayout::kGateUpPair) {
      CHECK(source.slices.size() == 2);
      loader_->copy(
          slice,
          {.target = weight->row(next_row), .group = kGateUpGroup, .pitch = 2 * kGateUpGroup});
      next_row += kGateUpGroup;
    } else {
      loader_->copy(slice, {.target = weight->row(next_row)});
      next_row += slice.rows;
    }
  }
  if (source.norm) {
    CHECK(source.norm->cols == cols);
    folds_.push_back({.weight = weight.get(), .norm = load_vector(*source.norm)});
  }
  const Gemm::Tuning tuning{.weight = weight->row(0),
                            .n = rows,
                            .k = cols,
                            .accumulate = source.slices.size() == 1 && !source.partial};
  const bool seen = std::ranges::any_of(to_tune_, [&](const Gemm::Tuning& other) {
    return other.n == tuning.n && other.k == tuning.k && other.accumulate == tuning.accumulate;
  });
  if (!seen) {
    to_tune_.push_back(tuning);
  }
  return weight;
}

std::unique_ptr<Buffer> CudaBackend::load_vector(const MatrixSlice& source) {
  check_start();
  cuda_check(cudaSetDevice(device_));
  CHECK(source.rows == 1);
  std::vector<float> values(static_cast<std::size_t>(source.cols));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (source.type == DType::kFloat32) {
      std::memcpy(&values[i], source.data + i * sizeof(float), sizeof(float));
      continue;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, source.data + i * sizeof bits, sizeof bits);
    if (source.type == DType::kFloat16 && !is_finite_float16(bits)) {
      throw FatalError("weights: " + std::string(source.name) +
                       " holds NaN or infinity; download the model again");
    }
    values[i] = source.type == DType::kFloat16
                    ? float16_value(bits)
                    : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  auto buffer = std::make_unique<DeviceBuffer>(values.size() * sizeof(float), "norm weights");
  copy_to_device(buffer->data(), values.data(), buffer->bytes());
  return buffer;
}

std::unique_ptr<Buffer> CudaBackend::load_table(const MatrixSlice& source) {
  check_start();
  cuda_check(cudaSetDevice(device_));
  auto buffer = std::make_unique<DeviceBuffer>(
      static_cast<std::size_t>(source.rows * source.cols) * sizeof(Bf16), "the embedding table");
  if (loader_ == nullptr) {
    loader_ = std::make_unique<WeightLoader>(device_);
  }
  loader_->copy(source, {.target = buffer->data()});
  return buffer;
}

void CudaBackend::finish_loading() {
  if (loader_ != nullptr) {
    loader_->finish();
    loader_.reset();
  }
  for (const Fold& fold : folds_) {
    launch_scale_columns(fold.weight->row(0), static_cast<const float*>(fold.norm->data()),
                         fold.weight->rows(), fold.weight->cols(), compute_.get());
  }
  cuda_check(cudaStreamSynchronize(compute_.get()));
  folds_.clear();
}

std::unique_ptr<BatchSlot> CudaBackend::make_slot(const BatchLimits& limits,
                                                  const EncoderShape& shape) {
  check_start();
  cuda_check(cudaSetDevice(device_));
  if (!plan_) {
    take_shared_memory(limits, shape);
  }
  return std::make_unique<CudaSlot>(limits, *plan_, shape.hidden_size);
}

void CudaBackend::take_shared_memory(const BatchLimits& limits, const EncoderShape& shape) {
  limits_ = limits;
  plan_ = plan_for(shape.attention, properties_);
  const std::vector<Gemm::Tuning> products = tunings(limits, shape);
  tune(limits, products);
  rope_table_ = std::make_unique<DeviceBuffer>(rope_table_bytes(limits), "the RoPE table");
  gate_up_ =
      std::make_unique<DeviceBuffer>(gate_up_bytes(limits, shape), "gate and up before SwiGLU");
  squares_ = std::make_unique<DeviceBuffer>(squares_bytes(limits), "mean squares of rows");
  layers_ =
      std::make_unique<LayerRunner>(shape, compute_capability(), properties_.multiProcessorCount);
  time_fused_products(limits, shape);
  load_products(products);
}

// The encoder's products: every weight loaded, and of qkv the parts that the last layer takes.
std::vector<Gemm::Tuning> CudaBackend::tunings(const BatchLimits& limits,
                                               const EncoderShape& shape) const {
  const AttentionShape& heads = shape.attention;
  std::vector<Gemm::Tuning> all;
  for (Gemm::Tuning tuning : to_tune_) {
    tuning.max_rows = limits.max_tokens;
    all.push_back(tuning);
    if (tuning.n == heads.qkv_width() && !tuning.accumulate) {
      tuning.n = 2 * heads.kv_width();
      all.push_back(tuning);
      tuning.n = heads.q_width();
      tuning.max_rows = std::min(limits.max_sequences, tuning.max_rows);
      all.push_back(tuning);
    }
  }
  return all;
}

void CudaBackend::load_products(const std::vector<Gemm::Tuning>& products) {
  constexpr std::int64_t kRows = 16;  // that Gemm::load touches
  for (const Gemm::Tuning& t : products) {
    DeviceBuffer in(static_cast<std::size_t>(kRows * t.k) * sizeof(Bf16), "loading products");
    DeviceBuffer out(static_cast<std::size_t>(kRows * t.n) * sizeof(Bf16), "loading products");
    gemm_.load(t, out.as<Bf16>(), in.as<Bf16>(), compute_.get());
    cuda_check(cudaStreamSynchronize(compute_.get()));
  }
}

// Times matrix products for every shape of the encoder, on scratch memory that is given back before
// the activations that it stands for are taken.
void CudaBackend::tune(const BatchLimits& limits, std::vector<Gemm::Tuning> all) {
  std::erase_if(all, [&](const Gemm::Tuning& tuning) { return gemm_.is_tuned(tuning); });
  if (all.empty()) {
    return;
  }
  std::int64_t widest_in = 0;
  std::int64_t widest_out = 0;
  for (const Gemm::Tuning& tuning : all) {
    widest_in = std::max(widest_in, tuning.k);
    widest_out = std::max(widest_out, tuning.n);
  }
  const auto row_bytes = static_cast<std::size_t>(widest_in + widest_out) * sizeof(Bf16);
  const auto rows = std::max<std::int64_t>(
      64, std::min(limits.max_tokens, static_cast<std::int64_t>(scratch_bytes() / row_bytes)));
  DeviceBuffer in(static_cast<std::size_t>(rows * widest_in) * sizeof(Bf16), "timing products");
  DeviceBuffer out(static_cast<std::size_t>(rows * widest_out) * sizeof(Bf16), "timing products");
  // Products of constants draw less power and run faster than those of real numbers.
  launch_fill_random(in.as<Bf16>(), rows * widest_in, 1, compute_.get());
  launch_fill_random(out.as<Bf16>(), rows * widest_out, 2, compute_.get());
  for (Gemm::Tuning& tuning : all) {
    tuning.max_rows = std::min(tuning.max_rows, rows);
    gemm_.tune(tuning, out.as<Bf16>(), in.as<Bf16>(), compute_.get());
  }
  gemm_.save();
}

void CudaBackend::prepare_rope(double theta) {
  if (theta == rope_theta_) [[likely]] {
    return;
  }
  CHECK(rope_table_ != nullptr);
  // Outside the kernels' stream, which may be recording.
  launch_rope_table(rope_table_->as<float>(), limits_.max_seqlen, theta, copy_in_.get());
  cuda_check(cudaStreamSynchronize(copy_in_.get()));
  rope_theta_ = theta;
}

}  // namespace tessera::kernels::cuda

namespace tessera::kernels {

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return count;
}

}  // namespace tessera::kernels
