#include "kernels/cuda/products/products.hpp"

#include <algorithm>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

const float* f32(Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

std::size_t squares_bytes(const BatchLimits& limits) {
  return static_cast<std::size_t>(std::max(limits.max_tokens, limits.max_sequences)) *
         sizeof(float);
}

std::size_t gate_up_bytes(const BatchLimits& limits, const EncoderShape& shape) {
  return static_cast<std::size_t>(limits.max_tokens * 2 * shape.intermediate_size) * sizeof(Bf16);
}

}  // namespace

Products::Products(int device, const cudaDeviceProp& properties, cudaStream_t stream,
                   const std::string& algorithm_cache)
    : device_(device),
      compute_capability_(properties.major * 10 + properties.minor),
      num_sms_(properties.multiProcessorCount),
      stream_(stream),
      gemm_(algorithm_cache) {}

std::vector<MemoryTerm> Products::memory(const BatchLimits& limits, const EncoderShape& shape) {
  return {
      {.what = "gate and up before SwiGLU", .bytes = gate_up_bytes(limits, shape)},
      {.what = "mean squares of rows", .bytes = squares_bytes(limits)},
      {.what = "matrix-product workspace", .bytes = Gemm::kWorkspaceBytes},
      {.what = "reading weights, until they are loaded",
       .bytes = WeightLoader::page_locked_bytes(),
       .page_locked = true},
  };
}

WeightLoader& Products::loader() {
  if (loader_ == nullptr) {
    loader_ = std::make_unique<WeightLoader>(device_);
  }
  return *loader_;
}

std::unique_ptr<LinearWeight> Products::load(const LinearSource& source,
                                             std::unique_ptr<Buffer> norm) {
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
  std::int64_t next_row = 0;
  for (const MatrixSlice& slice : source.slices) {
    if (source.layout == RowLayout::kGateUpPair) {
      CHECK(source.slices.size() == 2);
      loader().copy(
          slice,
          {.target = weight->row(next_row), .group = kGateUpGroup, .pitch = 2 * kGateUpGroup});
      next_row += kGateUpGroup;
    } else {
      loader().copy(slice, {.target = weight->row(next_row)});
      next_row += slice.rows;
    }
  }
  if (norm != nullptr) {
    CHECK(norm->bytes() == static_cast<std::size_t>(cols) * sizeof(float));
    folds_.push_back({.weight = weight.get(), .norm = std::move(norm)});
  }
  remember_shape({.weight = weight->row(0),
                  .n = rows,
                  .k = cols,
                  .accumulate = source.slices.size() == 1 && !source.partial});
  return weight;
}

void Products::remember_shape(const Gemm::Tuning& tuning) {
  const bool seen = std::ranges::any_of(to_tune_, [&](const Gemm::Tuning& other) {
    return other.n == tuning.n && other.k == tuning.k && other.accumulate == tuning.accumulate;
  });
  if (!seen) {
    to_tune_.push_back(tuning);
  }
}

std::unique_ptr<Buffer> Products::load_table(const MatrixSlice& source) {
  auto buffer = std::make_unique<DeviceBuffer>(
      static_cast<std::size_t>(source.rows * source.cols) * sizeof(Bf16), "the embedding table");
  loader().copy(source, {.target = buffer->data()});
  return buffer;
}

void Products::finish_loading() {
  if (loader_ != nullptr) {
    loader_->finish();
    loader_.reset();
  }
  for (const Fold& fold : folds_) {
    launch_scale_columns(fold.weight->row(0), f32(*fold.norm), fold.weight->rows(),
                         fold.weight->cols(), stream_);
  }
  cuda_check(cudaStreamSynchronize(stream_));
  folds_.clear();
}

void Products::prepare(const BatchLimits& limits, const EncoderShape& shape,
                       const float* rope_table) {
  const std::vector<Gemm::Tuning> products = tunings(limits, shape);
  tune(limits, products);
  gate_up_ =
      std::make_unique<DeviceBuffer>(gate_up_bytes(limits, shape), "gate and up before SwiGLU");
  squares_ = std::make_unique<DeviceBuffer>(squares_bytes(limits), "mean squares of rows");
  time_fused(limits, shape, rope_table);
  load_code(products);
}

// Those that are given, or of its own.
const float* Products::mean_squares(const Bf16* x, std::int64_t rows, std::int64_t hidden,
                                    const Backend::RowNorm& norm) {
  if (norm.mean_squares != nullptr) {
    return f32(*norm.mean_squares);
  }
  CHECK(static_cast<std::size_t>(rows) * sizeof(float) <= squares_->bytes());
  launch_mean_squares(squares_->as<float>(), x, rows, hidden, norm.eps, stream_);
  return squares_->as<float>();
}

void Products::multiply(const Product& p) {
  const bool add = p.form == Product::Form::kAdd;
  const bool parted =
      add && p.rows <= kPartedGemmRowsMax && fused_.is_faster(FusedKind::kParts, p.n, p.k, p.rows);
  if (parted || small_gemm_supports(compute_capability_, p.rows, p.n, p.k)) {
    launch_small_gemm(p, num_sms_, stream_);
  } else if (add && fused_.is_faster(FusedKind::kSum, p.n, p.k, p.rows)) {
    launch_fused_gemm(p, num_sms_, stream_);
  } else {
    gemm_.multiply(p, stream_);
  }
}

void Products::linear(Bf16* out, const Bf16* in, LinearWeight& weight, std::int64_t rows,
                      bool add) {
  multiply({.form = add ? Product::Form::kAdd : Product::Form::kStore,
            .out = out,
            .in = in,
            .weight = bf16_weight(weight).row(0),
            .rows = rows,
            .n = weight.rows(),
            .k = weight.cols()});
}

void Products::heads(Bf16* out, const Bf16* x, LinearWeight& weight, const Heads& heads,
                     const Backend::QkNormRope& options) {
  const Heads& h = heads;
  CHECK(h.first_row + h.width <= weight.rows());
  const Product product{.out = out,
                        .in = x,
                        .weight = bf16_weight(weight).row(h.first_row),
                        .mean_squares = mean_squares(x, h.rows, weight.cols(), options.norm),
                        .rows = h.rows,
                        .n = h.width,
                        .k = weight.cols()};
  const auto num_q = static_cast<int>(h.num_q);
  const auto num_k = static_cast<int>(h.num_k);
  const bool small = small_gemm_supports(compute_capability_, h.rows, h.width, weight.cols());
  if (!small && fused_.is_faster(FusedKind::kHeads, h.width, weight.cols(), h.rows)) {
    launch_qk_norm_rope_gemm(product,
                             {.num_q = num_q,
                              .num_k = num_k,
                              .q_norm = f32(*options.q_norm),
                              .k_norm = f32(*options.k_norm),
                              .positions = h.positions,
                              .rope_table = h.rope_table,
                              .eps = options.norm.eps},
                             num_sms_, stream_);
    return;
  }
  multiply(product);
  // Heads that this product has not are not normalised, so their norm is not looked at.
  launch_qk_norm_rope({.heads = out,
                       .row_stride = h.width,
                       .rows = h.rows,
                       .num_q = num_q,
                       .num_k = num_k,
                       .num_v = static_cast<int>(h.num_v),
                       .q_norm = f32(*options.q_norm),
                       .k_norm = f32(*options.k_norm),
                       .mean_squares = product.mean_squares,
                       .positions = h.positions,
                       .rope_table = h.rope_table,
                       .eps = options.norm.eps},
                      stream_);
}

void Products::swiglu(Bf16* out, const Bf16* x, LinearWeight& weight, std::int64_t rows,
                      const Backend::RowNorm& norm) {
  Product product{.form = Product::Form::kSwiglu,
                  .out = out,
                  .in = x,
                  .weight = bf16_weight(weight).row(0),
                  .mean_squares = mean_squares(x, rows, weight.cols(), norm),
                  .rows = rows,
                  .n = weight.rows(),
                  .k = weight.cols()};
  if (small_gemm_supports(compute_capability_, rows, product.n, product.k)) {
    launch_small_gemm(product, num_sms_, stream_);
  } else if (fused_.is_faster(FusedKind::kSwiglu, product.n, product.k, rows)) {
    launch_fused_gemm(product, num_sms_, stream_);
  } else {
    CHECK(static_cast<std::size_t>(rows * product.n) * sizeof(Bf16) <= gate_up_->bytes());
    product.form = Product::Form::kStore;
    product.out = gate_up_->as<Bf16>();
    multiply(product);
    launch_swiglu(out, product.out, product.mean_squares, rows, product.n / 2, stream_);
  }
}

}  // namespace tessera::kernels::cuda
