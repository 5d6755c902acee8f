#include "kernels/cuda/backend/cuda_backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/check.hpp"
#include "kernels/cuda/backend/graph_sizes.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

// A recorded pass of a deep model, as measured on an H200.
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

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options)
    : device_(checked_device(options.device)),
      properties_(properties_of(device_)),
      compute_(make_stream()),
      copy_in_(make_stream()),
      copy_out_(make_stream()),
      products_(device_, properties_, compute_.get(),
                options.algorithm_cache.empty() ? default_algorithm_cache_file()
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

std::vector<MemoryTerm> CudaBackend::own_memory(const BatchLimits& limits,
                                                const EncoderShape& shape, int slots) const {
  const AttentionPlan plan = plan_for(shape.attention, properties_);
  const auto count = static_cast<std::size_t>(slots);
  const std::string many = std::to_string(slots) + " slots: ";
  const std::size_t graphs = count * recorded_batches(limits).size();
  const std::size_t staged = count * CudaSlot::staged_bytes(limits, plan);
  const std::size_t results = count * CudaSlot::result_bytes(limits, shape.hidden_size);
  std::vector<MemoryTerm> terms = Products::memory(limits, shape);
  terms.insert(
      terms.end(),
      {{.what = "RoPE table", .bytes = rope_table_bytes(limits)},
       {.what = "layers of short batches", .bytes = LayerRunner::kDeviceBytes},
       {.what = many + "ids, positions, attention tiles", .bytes = staged},
       {.what = many + "vectors and flags", .bytes = results},
       {.what = std::to_string(graphs) + " recorded passes, at most",
        .bytes = graphs * kGraphBytes},
       {.what = "kernels' code, at most", .bytes = kCodeBytes},
       {.what = many + "ids, positions, attention tiles", .bytes = staged, .page_locked = true},
       {.what = many + "vectors and flags", .bytes = results, .page_locked = true}});
  return terms;
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
  return products_.load(source, source.norm ? load_vector(*source.norm) : nullptr);
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
  return products_.load_table(source);
}

void CudaBackend::finish_loading() { products_.finish_loading(); }

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
  rope_table_ = std::make_unique<DeviceBuffer>(rope_table_bytes(limits), "the RoPE table");
  layers_ =
      std::make_unique<LayerRunner>(shape, compute_capability(), properties_.multiProcessorCount);
  products_.prepare(limits, shape, rope_table_->as<float>());
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
