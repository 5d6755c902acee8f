#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cpu/matmul.hpp"
#include "kernels/cpu/team.hpp"

namespace tessera::kernels::cpu {

// A weight matrix as panels of output features. Stacked slices are cut one by one, at multiples of
// kPanelWidth, so that no panel holds parts of two slices. A gate-up pair is cut into panels that
// hold the same features of both, gate first: panel.row counts features, panel.width both halves.
class CpuLinearWeight final : public LinearWeight {
 public:
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::size_t bytes() const override { return packed_.size(); }
  const std::vector<Panel>& panels() const { return panels_; }
  // [cols], of the RMSNorm in front of the product; null where there is none.
  const float* norm() const { return norm_.size() > 0 ? norm_.as<float>() : nullptr; }

  // Packs with all members of the team. Throws FatalError on shapes that do not fit together.
  static std::unique_ptr<CpuLinearWeight> load(const LinearSource& source, DType type,
                                               MatmulLibrary& library, Team& team);

 private:
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  AlignedBytes packed_;  // the panels, one behind the other
  std::vector<Panel> panels_;
  AlignedBytes norm_;
};

// Copies rows [first, first + count) of a slice, converted to `type`, to contiguous memory.
void copy_rows(std::byte* to, DType type, const MatrixSlice& from, std::int64_t first,
               std::int64_t count);

}  // namespace tessera::kernels::cpu
