"builtin.module"() ({
  "sdy.mesh"() {mesh = #sdy.mesh<["data"=2, "expert"=4]>, sym_name = "mesh"} : () -> ()
  "func.func"() ({
  ^bb0(%arg0: tensor<4xf32>, %arg1: tensor<4xi32>):
    %0 = "stablehlo.constant"() {value = dense<0> : tensor<i32>} : () -> tensor<i32>
    %1:2 = "stablehlo.while"(%0, %arg0) ({
    ^bb0(%arg2: tensor<i32>, %arg3: tensor<4xf32>):
      %2 = "stablehlo.constant"() {value = dense<5> : tensor<i32>} : () -> tensor<i32>
      %3 = "stablehlo.compare"(%arg2, %2) {comparison_direction = #stablehlo<comparison_direction LT>} : (tensor<i32>, tensor<i32>) -> tensor<i1>
      "stablehlo.return"(%3) : (tensor<i1>) -> ()
    }, {
    ^bb0(%arg4: tensor<i32>, %arg5: tensor<4xf32>):
      %4 = "func.call"(%arg5) {callee = @"mix.double(x=1).0"} : (tensor<4xf32>) -> tensor<4xf32>
      %5 = "stablehlo.constant"() {value = dense<1> : tensor<i32>} : () -> tensor<i32>
      %6 = "stablehlo.add"(%arg4, %5) : (tensor<i32>, tensor<i32>) -> tensor<i32>
      "stablehlo.return"(%6, %4) : (tensor<i32>, tensor<4xf32>) -> ()
    }) : (tensor<i32>, tensor<4xf32>) -> (tensor<i32>, tensor<4xf32>)
    %7 = "stablehlo.composite"(%1#1) {composite_attributes = {note = "a \"quoted\" \0A line"}, decomposition = @"mix.double(x=1).0", name = "mix.double", version = 0 : i32} : (tensor<4xf32>) -> tensor<4xf32>
    "func.return"(%7, %arg1) : (tensor<4xf32>, tensor<4xi32>) -> ()
  }) {arg_attrs = [{tf.aliasing_output = 0 : i32}, {}], function_type = (tensor<4xf32>, tensor<4xi32>) -> (tensor<4xf32>, tensor<4xi32>), sym_name = "main"} : () -> ()
  "func.func"() ({
  ^bb0(%arg0: tensor<4xf32>):
    %0 = "stablehlo.add"(%arg0, %arg0) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    "func.return"(%0) : (tensor<4xf32>) -> ()
  }) {function_type = (tensor<4xf32>) -> (tensor<4xf32>), sym_name = "mix.double(x=1).0", sym_visibility = "private"} : () -> ()
}) {mhlo.num_replicas = 1 : i32, sym_name = "example"} : () -> ()
