#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/check.hpp"
#include "kernels/backend.hpp"

namespace tessera::testing {

// The operations of Backend in plain loops over float32, done when the call returns: slow, for
// reading and for tests of what is built on backends. Takes parts of sequences, and any number of
// batches in turns. Counts what asks for memory.
class HostBackend : public kernels::Backend, public kernels::HostQueue {
 public:
  using Buffer = kernels::Buffer;
  using BatchSlot = kernels::BatchSlot;
  using LinearWeight = kernels::LinearWeight;
  using Shape = kernels::AttentionShape;
  using DType = kernels::DType;

  std::string name() const override { return "host"; }
  std::string kind() const override { return "host"; }
  DType weight_type() const override { return DType::kFloat32; }
  DType activation_type() const override { return DType::kFloat32; }
  DType residual_type() const override { return DType::kFloat32; }
  std::size_t free_memory_bytes() const override { return free_memory; }
  std::size_t free_memory = std::size_t{1} << 33;
  int taken = 0;           // calls that took memory
  std::uint64_t cuts = 0;  // made

  std::vector<kernels::MemoryTerm> own_memory(const kernels::BatchLimits&,
                                              const kernels::EncoderShape&, int) const override {
    return {};
  }
  std::unique_ptr<Buffer> allocate(std::size_t bytes, std::string_view) override {
    check_start();
    ++taken;
    return std::make_unique<Memory>(bytes);
  }
  std::unique_ptr<LinearWeight> load_linear(const kernels::LinearSource& source) override {
    check_start();
    ++taken;
    auto weight = std::make_unique<Weight>();
    for (const kernels::MatrixSlice& slice : source.slices) {
      weight->cols_ = slice.cols;
      weight->rows_ += slice.rows;
      for (std::int64_t r = 0; r < slice.rows; ++r) {
        for (std::int64_t c = 0; c < slice.cols; ++c)
          weight->values.push_back(element(slice, r, c));
      }
    }
    for (std::int64_t c = 0; source.norm && c < source.norm->cols; ++c) {
      weight->norm.push_back(element(*source.norm, 0, c));
    }
    return weight;
  }
  std::unique_ptr<Buffer> load_vector(const kernels::MatrixSlice& source) override {
    return load_table(source);
  }
  std::unique_ptr<Buffer> load_table(const kernels::MatrixSlice& source) override {
    check_start();
    ++taken;
    auto memory = std::make_unique<Memory>(static_cast<std::size_t>(source.rows * source.cols) * 4);
    for (std::int64_t i = 0; i < source.rows * source.cols; ++i) {
      memory->values[static_cast<std::size_t>(i)] =
          element(source, i / source.cols, i % source.cols);
    }
    return memory;
  }
  void finish_loading() override {}
  std::unique_ptr<BatchSlot> make_slot(const kernels::BatchLimits&,
                                       const kernels::EncoderShape&) override {
    check_start();
    ++taken;
    return std::make_unique<Slot>();
  }

  Start begin(BatchSlot& slot, const kernels::PackedBatchView& batch) override {
    Slot& s = of(slot);
    s = {};
    s.ids.assign(batch.input_ids.begin(), batch.input_ids.end());
    for (std::size_t i = 0; i + 1 < batch.cu_seqlens.size(); ++i) {
      const kernels::Segment segment = batch.segments.empty()
                                           ? kernels::Segment{.first_kv = batch.cu_seqlens[i]}
                                           : batch.segments[i];
      for (std::int32_t t = batch.cu_seqlens[i]; t < batch.cu_seqlens[i + 1]; ++t) {
        s.positions.push_back(segment.position + t - batch.cu_seqlens[i]);
        s.first_kv.push_back(segment.first_kv);
      }
      if (segment.ends) s.last_rows.push_back(batch.cu_seqlens[i + 1] - 1);
    }
    return Start::kQueue;
  }
  std::uint64_t cut(BatchSlot&) override { return ++cuts; }
  void resume(BatchSlot&) override {}
  void wait_cut(std::uint64_t ticket) override { CHECK(ticket <= cuts); }
  void end(BatchSlot&) override {}
  void wait(BatchSlot&) override {}
  std::span<const float> vectors(const BatchSlot& slot) const override {
    return static_cast<const Slot&>(slot).vectors;
  }
  std::span<const std::uint8_t> finite(const BatchSlot& slot) const override {
    return static_cast<const Slot&>(slot).finite;
  }
  void host_task(std::function<void()> task) override { task(); }

  void embed(Buffer& x, Buffer& table, BatchSlot& slot, std::int64_t hidden) override {
    for (std::size_t t = 0; t < of(slot).ids.size(); ++t) {
      std::copy_n(data(table) + of(slot).ids[t] * hidden, hidden,
                  data(x) + static_cast<std::int64_t>(t) * hidden);
    }
  }
  void qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                      const Shape& shape, const QkNormRope& options) override {
    const Slot& s = of(slot);
    const auto in = normed(x, weight, s.total_tokens(), options.norm.eps);
    multiply(data(qkv), in.data(), weight, 0, shape.qkv_width(), s.total_tokens(), false);
    rotate(data(qkv), shape.qkv_width(), s.positions, shape.num_q_heads, shape.num_kv_heads,
           options);
  }
  void attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot& slot,
                 const Shape& shape) override {
    const Slot& s = of(slot);
    const std::int64_t kv_stride = gathered != nullptr ? 2 * shape.kv_width() : shape.qkv_width();
    const float* k = gathered != nullptr ? data(*gathered) : data(qkv) + shape.q_width();
    for (std::size_t t = 0; t < s.ids.size(); ++t) {
      const auto row = static_cast<std::int64_t>(t);
      attend(data(out) + row * shape.q_width(), data(qkv) + row * shape.qkv_width(),
             k + s.first_kv[t] * kv_stride, kv_stride, s.positions[t] + 1, shape);
    }
  }
  void kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                     const Shape& shape, const QkNormRope& options) override {
    const Slot& s = of(slot);
    const std::int64_t width = 2 * shape.kv_width();
    const auto in = normed(x, weight, s.total_tokens(), options.norm.eps);
    multiply(data(kv), in.data(), weight, shape.q_width(), width, s.total_tokens(), false);
    rotate(data(kv), width, s.positions, 0, shape.num_kv_heads, options);
  }
  void last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight, BatchSlot& slot,
                         const Shape& shape, const QkNormRope& options) override {
    const Slot& s = of(slot);
    std::vector<std::int32_t> positions;
    for (const std::int32_t row : s.last_rows) {
      positions.push_back(s.positions[static_cast<std::size_t>(row)]);
    }
    const auto in = normed(x_last, weight, s.num_sequences(), options.norm.eps);
    multiply(data(q), in.data(), weight, 0, shape.q_width(), s.num_sequences(), false);
    rotate(data(q), shape.q_width(), positions, shape.num_q_heads, 0, options);
  }
  void last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot& slot,
                      const Shape& shape) override {
    const Slot& s = of(slot);
    const std::int64_t stride = 2 * shape.kv_width();
    for (std::size_t i = 0; i < s.last_rows.size(); ++i) {
      const auto t = static_cast<std::size_t>(s.last_rows[i]);
      const auto row = static_cast<std::int64_t>(i);
      attend(data(out) + row * shape.q_width(), data(q) + row * shape.q_width(),
             data(kv) + s.first_kv[t] * stride, stride, s.positions[t] + 1, shape);
    }
  }
  void gather_last(Buffer& out, Buffer& x, BatchSlot& slot, std::int64_t width) override {
    const Slot& s = of(slot);
    for (std::size_t i = 0; i < s.last_rows.size(); ++i) {
      std::copy_n(data(x) + s.last_rows[i] * width, width,
                  data(out) + static_cast<std::int64_t>(i) * width);
    }
  }
  void linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) override {
    multiply(data(out), data(in), weight, 0, weight.rows(), rows, false);
  }
  void linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) override {
    multiply(data(x), data(in), weight, 0, weight.rows(), rows, true);
  }
  void swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                         const RowNorm& row_norm) override {
    const std::int64_t width = weight.rows() / 2;
    std::vector<float> both(static_cast<std::size_t>(rows * 2 * width));
    const auto in = normed(x, weight, rows, row_norm.eps);
    multiply(both.data(), in.data(), weight, 0, 2 * width, rows, false);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < width; ++i) {
        const float gate = both[static_cast<std::size_t>(r * 2 * width + i)];
        const float up = both[static_cast<std::size_t>(r * 2 * width + width + i)];
        data(out)[r * width + i] = gate / (1 + std::exp(-gate)) * up;
      }
    }
  }
  void pool(BatchSlot& slot, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden, float eps,
            Length length) override {
    Slot& s = of(slot);
    s.vectors.resize(s.last_rows.size() * static_cast<std::size_t>(hidden));
    for (std::int64_t i = 0; i < s.num_sequences(); ++i) {
      float* row = s.vectors.data() + i * hidden;
      norm(row, data(x_last) + i * hidden, data(norm_weight), hidden, eps);
      double sum = 0;
      for (std::int64_t c = 0; c < hidden; ++c) sum += static_cast<double>(row[c]) * row[c];
      for (std::int64_t c = 0; length == Length::kUnit && c < hidden; ++c) {
        row[c] /= static_cast<float>(std::sqrt(sum));
      }
      s.finite.push_back(std::isfinite(sum) && sum > 0 ? 1 : 0);
    }
  }

 private:
  struct Memory final : Buffer {
    explicit Memory(std::size_t size) : values(size / sizeof(float)) {}
    std::size_t bytes() const override { return values.size() * sizeof(float); }
    void* data() override { return values.data(); }
    std::vector<float> values;
  };
  struct Weight final : LinearWeight {
    std::int64_t rows() const override { return rows_; }
    std::int64_t cols() const override { return cols_; }
    std::size_t bytes() const override { return values.size() * sizeof(float); }
    std::int64_t rows_ = 0, cols_ = 0;
    std::vector<float> values, norm;
  };
  struct Slot final : BatchSlot {
    std::int64_t total_tokens() const override { return static_cast<std::int64_t>(ids.size()); }
    std::int64_t num_sequences() const override {
      return static_cast<std::int64_t>(last_rows.size());
    }
    std::vector<std::int32_t> ids, positions, first_kv, last_rows;
    std::vector<float> vectors;
    std::vector<std::uint8_t> finite;
  };

  static Slot& of(BatchSlot& slot) { return static_cast<Slot&>(slot); }
  static float* data(Buffer& buffer) { return static_cast<float*>(buffer.data()); }

  static float element(const kernels::MatrixSlice& m, std::int64_t row, std::int64_t col) {
    const auto at = static_cast<std::size_t>(row * m.row_stride + col);
    float value = 0;
    if (m.type == DType::kFloat32) {
      std::memcpy(&value, m.data + at * 4, 4);
    } else if (m.type == DType::kFloat16) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, m.data + at * 2, 2);
      value = kernels::float16_value(bits);
    } else {
      std::memcpy(reinterpret_cast<char*>(&value) + 2, m.data + at * 2, 2);
    }
    return value;
  }

  static void multiply(float* out, const float* in, const LinearWeight& weight, std::int64_t first,
                       std::int64_t n, std::int64_t rows, bool add) {
    const auto& w = static_cast<const Weight&>(weight);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < n; ++i) {
        const float* row = w.values.data() + (first + i) * w.cols_;
        float sum = 0;
        for (std::int64_t c = 0; c < w.cols_; ++c) sum += in[r * w.cols_ + c] * row[c];
        out[r * n + i] = add ? out[r * n + i] + sum : sum;
      }
    }
  }

  static std::vector<float> normed(Buffer& x, const LinearWeight& weight, std::int64_t rows,
                                   float eps) {
    const auto& w = static_cast<const Weight&>(weight);
    std::vector<float> out(static_cast<std::size_t>(rows * w.cols_));
    for (std::int64_t r = 0; r < rows; ++r) {
      norm(out.data() + r * w.cols_, data(x) + r * w.cols_, w.norm.data(), w.cols_, eps);
    }
    return out;
  }

  static void norm(float* out, const float* x, const float* weight, std::int64_t width, float eps) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += static_cast<double>(x[i]) * x[i];
    const auto scale = static_cast<float>(
        1 / std::sqrt(sum / static_cast<double>(width) + static_cast<double>(eps)));
    for (std::int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
  }

  static void rotate(float* rows, std::int64_t stride, const std::vector<std::int32_t>& positions,
                     std::int64_t q_heads, std::int64_t k_heads, const QkNormRope& options) {
    constexpr std::int64_t kDim = 128, kHalf = kDim / 2;
    for (std::size_t t = 0; t < positions.size(); ++t, rows += stride) {
      for (std::int64_t head = 0; head < q_heads + k_heads; ++head) {
        float* h = rows + head * kDim;
        norm(h, h, data(head < q_heads ? *options.q_norm : *options.k_norm), kDim,
             options.norm.eps);
        for (std::int64_t i = 0; i < kHalf; ++i) {
          const double angle =
              positions[t] * std::pow(options.rope_theta, -static_cast<double>(i) / kHalf);
          const auto c = static_cast<float>(std::cos(angle));
          const auto s = static_cast<float>(std::sin(angle));
          const float a = h[i], b = h[i + kHalf];
          h[i] = a * c - b * s;
          h[i + kHalf] = b * c + a * s;
        }
      }
    }
  }

  // One token's query heads over `keys` rows of [k | v], `stride` apart.
  static void attend(float* out, const float* q, const float* k, std::int64_t stride,
                     std::int64_t keys, const Shape& shape) {
    const std::int64_t dim = shape.head_dim;
    std::vector<float> weights(static_cast<std::size_t>(keys));
    for (std::int64_t head = 0; head < shape.num_q_heads; ++head) {
      const std::int64_t column = head / (shape.num_q_heads / shape.num_kv_heads) * dim;
      float maximum = -std::numeric_limits<float>::infinity();
      for (std::int64_t key = 0; key < keys; ++key) {
        float dot = 0;
        for (std::int64_t i = 0; i < dim; ++i) {
          dot += q[head * dim + i] * k[key * stride + column + i];
        }
        auto& weight = weights[static_cast<std::size_t>(key)];
        weight = dot / std::sqrt(static_cast<float>(dim));
        maximum = std::max(maximum, weight);
      }
      float sum = 0;
      for (float& weight : weights) sum += weight = std::exp(weight - maximum);
      for (std::int64_t i = 0; i < dim; ++i) out[head * dim + i] = 0;
      for (std::int64_t key = 0; key < keys; ++key) {
        const float* v = k + key * stride + shape.kv_width() + column;
        for (std::int64_t i = 0; i < dim; ++i) {
          out[head * dim + i] += weights[static_cast<std::size_t>(key)] / sum * v[i];
        }
      }
    }
  }
};

}  // namespace tessera::testing
