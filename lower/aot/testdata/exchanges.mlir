module @exchanges attributes {mhlo.num_partitions = 8 : i32, mhlo.num_replicas = 1 : i32} {
  sdy.mesh @mesh = <["data"=2, "expert"=4]>
  func.func public @main(%x: tensor<64x128xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"data", "expert"}, {}]>}, %w: tensor<128x256xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {}]>}) -> (tensor<64x256xf32> {sdy.sharding = #sdy.sharding<@mesh, [{"data", "expert"}, {}]>}) {
    %0 = sdy.manual_computation(%x, %w) in_shardings=[<@mesh, [{"data", "expert"}, {}]>, <@mesh, [{}, {}]>] out_shardings=[<@mesh, [{"data", "expert"}, {}]>] manual_axes={"data", "expert"} (%a: tensor<8x128xf32>, %b: tensor<128x256xf32>) {
      %c0 = stablehlo.constant dense<0> : tensor<i32>
      %c1 = stablehlo.constant dense<1> : tensor<i32>
      %c3 = stablehlo.constant dense<3> : tensor<i32>
      %l:2 = stablehlo.while(%i = %c0, %v = %a) : tensor<i32>, tensor<8x128xf32>
      cond {
        %p = stablehlo.compare LT, %i, %c3 : (tensor<i32>, tensor<i32>) -> tensor<i1>
        stablehlo.return %p : tensor<i1>
      } do {
        %t = "stablehlo.all_to_all"(%v) {split_dimension = 0 : i64, concat_dimension = 0 : i64, split_count = 4 : i64, replica_groups = dense<[[0, 1, 2, 3], [4, 5, 6, 7]]> : tensor<2x4xi64>, channel_handle = #stablehlo.channel_handle<handle = 1, type = 1>} : (tensor<8x128xf32>) -> tensor<8x128xf32>
        %s = stablehlo.sine %t : tensor<8x128xf32>
        %n = stablehlo.add %i, %c1 : tensor<i32>
        stablehlo.return %n, %s : tensor<i32>, tensor<8x128xf32>
      }
      %g = "stablehlo.all_gather"(%l#1) {all_gather_dim = 0 : i64, replica_groups = dense<[[0, 4], [1, 5], [2, 6], [3, 7]]> : tensor<4x2xi64>, channel_handle = #stablehlo.channel_handle<handle = 2, type = 1>, use_global_device_ids} : (tensor<8x128xf32>) -> tensor<16x128xf32>
      %d = stablehlo.dot_general %g, %b, contracting_dims = [1] x [0] : (tensor<16x128xf32>, tensor<128x256xf32>) -> tensor<16x256xf32>
      %r = "stablehlo.reduce_scatter"(%d) ({
        ^bb0(%p0: tensor<f32>, %p1: tensor<f32>):
          %q = stablehlo.add %p0, %p1 : tensor<f32>
          stablehlo.return %q : tensor<f32>
      }) {scatter_dimension = 0 : i64, replica_groups = dense<[[0, 4], [1, 5], [2, 6], [3, 7]]> : tensor<4x2xi64>, channel_handle = #stablehlo.channel_handle<handle = 3, type = 1>, use_global_device_ids} : (tensor<16x256xf32>) -> tensor<8x256xf32>
      %u = "stablehlo.all_reduce"(%r) ({
        ^bb0(%p0: tensor<f32>, %p1: tensor<f32>):
          %q = stablehlo.add %p0, %p1 : tensor<f32>
          stablehlo.return %q : tensor<f32>
      }) {replica_groups = dense<[[0, 1, 2, 3, 4, 5, 6, 7]]> : tensor<1x8xi64>, channel_handle = #stablehlo.channel_handle<handle = 4, type = 1>, use_global_device_ids} : (tensor<8x256xf32>) -> tensor<8x256xf32>
      %k = "stablehlo.collective_permute"(%u) {source_target_pairs = dense<[[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7, 0]]> : tensor<8x2xi64>, channel_handle = #stablehlo.channel_handle<handle = 5, type = 1>} : (tensor<8x256xf32>) -> tensor<8x256xf32>
      sdy.return %k : tensor<8x256xf32>
    } : (tensor<64x128xf32>, tensor<128x256xf32>) -> tensor<64x256xf32>
    return %0 : tensor<64x256xf32>
  }
}
