#pragma once

#include <cstdint>

#include "kernels/backend.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/resources.hpp"

namespace tessera::kernels::cuda {

// A bf16 weight, row-major [rows, cols]; gate and up rows alternate in groups of kGateUpGroup.
class Bf16Weight final : public LinearWeight {
 public:
  Bf16Weight(const LinearSource& source, std::int64_t rows, std::int64_t cols)
      : rows_(rows),
        cols_(cols),
        memory_(static_cast<std::size_t>(rows * cols) * sizeof(Bf16), source.name) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::size_t bytes() const override { return memory_.bytes(); }
  Bf16* row(std::int64_t row) { return memory_.as<Bf16>() + row * cols_; }

 private:
  std::int64_t rows_;
  std::int64_t cols_;
  DeviceBuffer memory_;
};

inline Bf16Weight& bf16_weight(LinearWeight& weight) { return static_cast<Bf16Weight&>(weight); }

}  // namespace tessera::kernels::cuda
