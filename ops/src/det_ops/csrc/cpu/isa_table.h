// Ends a translation unit of one instruction set: the table of all kernels, under the name DET_TABLE.
#pragma once

#include "isa_boxes.h"
#include "isa_colors.h"
#include "isa_deform.h"
#include "isa_focal.h"
#include "isa_paste.h"
#include "isa_pooling.h"
#include "isa_resize.h"

namespace det {

template <class T>
const Kernels<T>& DET_TABLE() {
  static constexpr Kernels<T> table = {
      suppress<T>,
      decay<T>,
      overlaps<T>,
      assign_best<T>,
      assign_ties<T>,
      pool_average<T>,
      pool_average_backward<T>,
      pool_maximum<T>,
      sample<T>,
      sample_backward<T>,
      sample_dots<T>,
      focal_sum<T>,
      focal_loss<T>,
      focal_grad<T>,
      resize_row,
      resize_rows,
      resize_row_float,
      resize_rows_float,
      adjust_colors,
      gray_sum,
      paste_pixels<T>,
  };
  return table;
}

template const Kernels<float>& DET_TABLE<float>();
template const Kernels<double>& DET_TABLE<double>();

}  // namespace det
